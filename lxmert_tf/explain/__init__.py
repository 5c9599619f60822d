"""Where an answer comes from: every attention map, its gradients, and the relevance of each token and box."""

from typing import TYPE_CHECKING

from lxmert_tf.lazy import face

if TYPE_CHECKING:
    from lxmert_tf.explain.maps import attention_gradients as attention_gradients
    from lxmert_tf.explain.maps import attention_maps as attention_maps
    from lxmert_tf.explain.methods import Relevance as Relevance
    from lxmert_tf.explain.methods import relevance as relevance
    from lxmert_tf.explain.names import METHODS as METHODS
else:
    __all__, __getattr__, __dir__ = face(
        __name__,
        {
            "lxmert_tf.explain.maps": ("attention_maps", "attention_gradients"),
            "lxmert_tf.explain.methods": ("Relevance", "relevance"),
            "lxmert_tf.explain.names": ("METHODS",),
        },
    )
