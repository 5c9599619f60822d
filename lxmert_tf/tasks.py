"""The tasks: those of models, which tell what a checkpoint holds, and those of data sets and recipes."""

# What a checkpoint holds, and the PyTorch class of its model; that of Keras has "TF" before it.
ARCHITECTURES = {
    "model": "LxmertModel",
    "pretraining": "LxmertForPreTraining",
    "qa": "LxmertForQuestionAnswering",
    "visual-reasoning": "LxmertForVisualReasoning",
}
# What data sets and recipes are called, and the task of the model that is trained on them.
MODEL_TASKS = {"vqa": "qa", "gqa": "qa", "nlvr2": "visual-reasoning", "pretrain": "pretraining"}
TASKS = tuple(MODEL_TASKS)


def keras_class(task: str) -> str:
    """The name of the Keras class of a model for a task of `ARCHITECTURES`, "TFLxmertModel" for "model"."""
    return f"TF{ARCHITECTURES[task]}"


def task_of(class_name: str) -> str:
    """The task of a model class of ours or upstream's, by its name.

    Raises:
        ValueError: it is none of them.
    """
    for task, architecture in ARCHITECTURES.items():
        if class_name.removeprefix("TF") == architecture:
            return task
    raise ValueError(f"{class_name} is not an LXMERT model; expected one of {', '.join(ARCHITECTURES.values())}.")
