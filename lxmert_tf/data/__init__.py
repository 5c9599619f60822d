"""Region features, annotations and answer tables in the file formats of the original LXMERT, and datasets for `fit`."""

from typing import TYPE_CHECKING

from lxmert_tf.lazy import face

if TYPE_CHECKING:
    from lxmert_tf.answers import AnswerTable as AnswerTable
    from lxmert_tf.answers import read_answers as read_answers
    from lxmert_tf.answers import write_all_answers as write_all_answers
    from lxmert_tf.answers import write_answers as write_answers
    from lxmert_tf.data.annotations import Annotation as Annotation
    from lxmert_tf.data.annotations import NLVR2Annotation as NLVR2Annotation
    from lxmert_tf.data.annotations import PretrainingAnnotation as PretrainingAnnotation
    from lxmert_tf.data.annotations import read_annotations as read_annotations
    from lxmert_tf.data.annotations import read_nlvr2 as read_nlvr2
    from lxmert_tf.data.annotations import read_pretraining as read_pretraining
    from lxmert_tf.data.annotations import unknown_answers as unknown_answers
    from lxmert_tf.data.annotations import write_annotations as write_annotations
    from lxmert_tf.data.annotations import write_nlvr2 as write_nlvr2
    from lxmert_tf.data.annotations import write_pretraining as write_pretraining
    from lxmert_tf.data.batches import TaskDataset as TaskDataset
    from lxmert_tf.data.datasets import gqa_dataset as gqa_dataset
    from lxmert_tf.data.datasets import nlvr2_dataset as nlvr2_dataset
    from lxmert_tf.data.datasets import pretraining_dataset as pretraining_dataset
    from lxmert_tf.data.datasets import vqa_dataset as vqa_dataset
    from lxmert_tf.data.features.build import BuildReport as BuildReport
    from lxmert_tf.data.features.build import build_features as build_features
    from lxmert_tf.data.features.check import check_features as check_features
    from lxmert_tf.data.features.extract import extract_features as extract_features
    from lxmert_tf.data.features.regions import RegionFeatures as RegionFeatures
    from lxmert_tf.data.features.regions import normalize_boxes as normalize_boxes
    from lxmert_tf.data.features.store import FeatureStore as FeatureStore
    from lxmert_tf.data.features.store import UnknownImageError as UnknownImageError
    from lxmert_tf.data.features.store import open_features as open_features
    from lxmert_tf.data.features.tsv import read_tsv as read_tsv
    from lxmert_tf.data.features.tsv import write_tsv as write_tsv
    from lxmert_tf.data.raw_annotations import PrepareReport as PrepareReport
    from lxmert_tf.data.raw_annotations import prepare_gqa as prepare_gqa
    from lxmert_tf.data.raw_annotations import prepare_nlvr2 as prepare_nlvr2
    from lxmert_tf.data.raw_annotations import prepare_vqa as prepare_vqa
    from lxmert_tf.data.vqa_answers import normalize_vqa_answer as normalize_vqa_answer
else:
    __all__, __getattr__, __dir__ = face(
        __name__,
        {
            "lxmert_tf.answers": ("AnswerTable", "read_answers", "write_answers", "write_all_answers"),
            "lxmert_tf.data.annotations": (
                "Annotation",
                "NLVR2Annotation",
                "PretrainingAnnotation",
                "read_annotations",
                "read_nlvr2",
                "read_pretraining",
                "write_annotations",
                "write_nlvr2",
                "write_pretraining",
                "unknown_answers",
            ),
            "lxmert_tf.data.batches": ("TaskDataset",),
            "lxmert_tf.data.datasets": ("vqa_dataset", "gqa_dataset", "nlvr2_dataset", "pretraining_dataset"),
            "lxmert_tf.data.features.build": ("BuildReport", "build_features"),
            "lxmert_tf.data.features.check": ("check_features",),
            "lxmert_tf.data.features.extract": ("extract_features",),
            "lxmert_tf.data.features.regions": ("RegionFeatures", "normalize_boxes"),
            "lxmert_tf.data.features.store": ("FeatureStore", "UnknownImageError", "open_features"),
            "lxmert_tf.data.features.tsv": ("read_tsv", "write_tsv"),
            "lxmert_tf.data.raw_annotations": ("PrepareReport", "prepare_gqa", "prepare_nlvr2", "prepare_vqa"),
            "lxmert_tf.data.vqa_answers": ("normalize_vqa_answer",),
        },
    )
