"""The detector: from pictures to the region features that LXMERT takes.

`lxmert_pt.detector` mirrors it in PyTorch. `lxmert_tf.detector.pipelines` says which of upstream's programs do what.
"""

from typing import TYPE_CHECKING

from lxmert_tf.lazy import face

if TYPE_CHECKING:
    from lxmert_tf.detector.configuration import DetectorConfig as DetectorConfig
    from lxmert_tf.detector.image_processor import BadImage as BadImage
    from lxmert_tf.detector.image_processor import ImageProcessor as ImageProcessor
    from lxmert_tf.detector.modeling import FasterRCNN as FasterRCNN
    from lxmert_tf.detector.pipelines import PIPELINES as PIPELINES
    from lxmert_tf.detector.pipelines import Pipeline as Pipeline
    from lxmert_tf.detector.pipelines import make_pipeline as make_pipeline
    from lxmert_tf.detector.question_answering import PictureAnswers as PictureAnswers
    from lxmert_tf.detector.question_answering import (
        VisualQuestionAnsweringPipeline as VisualQuestionAnsweringPipeline,
    )
    from lxmert_tf.detector.regions import Regions as Regions
else:
    __all__, __getattr__, __dir__ = face(
        __name__,
        {
            "lxmert_tf.detector.configuration": ("DetectorConfig",),
            "lxmert_tf.detector.image_processor": ("BadImage", "ImageProcessor"),
            "lxmert_tf.detector.pipelines": ("PIPELINES", "Pipeline", "make_pipeline"),
            "lxmert_tf.detector.regions": ("Regions",),
            "lxmert_tf.detector.question_answering": ("PictureAnswers", "VisualQuestionAnsweringPipeline"),
            "lxmert_tf.detector.modeling": ("FasterRCNN",),
        },
    )
