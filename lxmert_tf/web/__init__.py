"""A page to ask pictures on: `lxmert-tf web`. Needs Gradio (extra `web`)."""
