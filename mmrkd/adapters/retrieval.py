"""mmpretrain's retrieval of images by images, which is trained as a classification."""

from mmrkd.adapters.classification import ClassificationAdapter
from mmrkd.registry import ADAPTERS


@ADAPTERS.register_module()
class RetrievalAdapter(ClassificationAdapter):
    """mmpretrain's ``ImageToImageRetriever``: an encoder and the head (ArcFace) that classifies what it encodes."""

    serves = 'mmpretrain.models.retrievers.image2image.ImageToImageRetriever'
    main_metric = 'retrieval/Recall@1'
