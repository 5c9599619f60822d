"""The methods by name. Imports nothing, so that command lines answer at once."""

METHODS = ("chefer", "rollout", "raw_attention", "gradcam", "gradient_times_input", "integrated_gradients")
# Those of Chefer et al.'s own code have its names as well
SPELLINGS = {"ours_no_lrp": "chefer", "raw_attn": "raw_attention", "attn_gradcam": "gradcam"}


def spelled(method: str) -> str:
    """A method's name in our spelling; what is none stays as it is."""
    return SPELLINGS.get(method, method)
