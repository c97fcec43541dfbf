"""The faults that a distillation can have, each with its name, its cause and its remedy."""

from typing import NamedTuple


class Entry(NamedTuple):
    """What is wrong when a fault of this name is reported, and what to do."""

    cause: str
    remedy: str


FAULTS: dict[str, Entry] = {
    'config-unreadable': Entry(
        'The config is not there, is not valid Python, or inherits from something that is not there.',
        'Correct the path; a config of a library is written mmdet::retinanet/retinanet_r18_fpn_1x_coco.py.',
    ),
    'command-line': Entry(
        '--teacher, --teacher-ckpt and --method do not make a distillation of this config, or --cfg-options fail.',
        'Give all three with a plain config, or none of them with a distillation config.',
    ),
    'not-a-distillation': Entry(
        'The model of the config is a plain one.',
        'Add --teacher CONFIG --teacher-ckpt FILE --method era, or write model = dict(type="mmrkd.Distiller", ...).',
    ),
    'missing-annotations': Entry(
        'An annotation file that a dataloader names is not there.',
        'Correct data_root or ann_file in the config, set MMRKD_DATA, or link the data to ./data.',
    ),
    'missing-images': Entry(
        'An image or the folder of images that a dataloader names is not there.',
        'Correct data_root or data_prefix in the config, set MMRKD_DATA, or link the data to ./data.',
    ),
    'data-unreadable': Entry(
        'A dataset cannot be built, or its pipeline cannot load an image.',
        'Check that the annotation file is complete and of the kind that the dataset reads, and the pipeline.',
    ),
    'empty-data': Entry(
        'A dataset has no image, or none of the images looked at has an object.',
        'Check metainfo.classes against the names in the annotation file: objects of other names are dropped.',
    ),
    'boxes-format': Entry(
        'The boxes in an annotation file are not x, y, width, height.',
        'Convert them: COCO boxes begin with the upper left corner, followed by width and height, in pixels.',
    ),
    'boxes-not-finite': Entry(
        'Boxes are NaN or infinite: so is the loss of every batch that has one.',
        'Remove or mend these annotations.',
    ),
    'boxes-without-area': Entry(
        'Boxes, 1 % of them or more, are less than a pixel wide or high, or have no area or one of 0: they are left '
        'out of the training without a word. A warning where it is less.',
        'Check that boxes are in pixels and not in shares of the image; give each annotation its area.',
    ),
    'boxes-outside': Entry(
        'Boxes, 5 % of them or more, reach outside of their image by more than two pixels. A warning where it is less.',
        'Check the order of the numbers, and width and height of the images; if boxes are meant to show what is cut '
        'off, pass --ignore boxes-outside.',
    ),
    'image-size': Entry(
        'Images have another size than the annotations say, half of those looked at or more. A warning where it is '
        'less.',
        'Take the annotations of these very images; correct width and height in the file.',
    ),
    'anchor-reach': Entry(
        'Boxes, half of them or more, are more than four times smaller or larger than any anchor, where the model sees '
        'them. A warning from a tenth on.',
        'Change the scale of the images, or strides, scales and levels of the anchors.',
    ),
    'annotations-lost': Entry(
        'A warning: annotations belong to no image of their file.',
        'Check image_id and the ids of the images.',
    ),
    'category-unknown': Entry(
        'Boxes have a category_id that their file does not define, or classes are none of its categories, so that the '
        'labels of others shift.',
        'Complete the categories of the file; bring metainfo.classes into its words.',
    ),
    'category-unused': Entry(
        'A warning: classes have no box, or boxes are of categories that are not among the classes.',
        'Check metainfo.classes against the names in the annotation file.',
    ),
    'batch-size': Entry(
        'The batch size is not a whole number of at least 1, or the training set is smaller than one batch.',
        'Set train_dataloader.batch_size.',
    ),
    'class-count': Entry(
        'Student, teacher, teacher checkpoint and data do not tell the same number of classes apart.',
        'Set num_classes in every head, and metainfo.classes in the data, to the classes of the teacher.',
    ),
    'class-names': Entry(
        'The teacher was trained for classes of other names, or in another order, than the data has.',
        'Bring metainfo.classes into the order of the teacher, or train the teacher on these classes.',
    ),
    'student-config': Entry(
        "The student's model cannot be built.",
        'Train the plain config first; what does not build there cannot be distilled.',
    ),
    'student-kind': Entry(
        'The student is no mmdet detector, mmpretrain classifier, mmseg segmentor or mmpose pose estimator.',
        'Distil a model of one of these libraries, or a class derived from one.',
    ),
    'student-weights': Entry(
        'The weights that the student is to start from (init_cfg, load_from) cannot be loaded.',
        'Correct the path or address, or take init_cfg or load_from out to start from scratch.',
    ),
    'student-frozen': Entry(
        'No parameter of the student requires a gradient.',
        'Lower frozen_stages of the backbone and take requires_grad=False out of the student.',
    ),
    'init-student': Entry(
        'The student has no part of the name that init_student gives, or none of its weights fits.',
        'Name parts that both models build alike (backbone, neck, head), or leave init_student out.',
    ),
    'teacher-config': Entry(
        "The teacher's config is missing, cannot be read, or its model cannot be built.",
        'Set teacher=dict(cfg=...) to the config that the teacher was trained with.',
    ),
    'teacher-checkpoint-missing': Entry(
        'No checkpoint of the teacher is given, or the file is not there.',
        'Set teacher=dict(ckpt=...) to a file that exists.',
    ),
    'teacher-checkpoint-unreadable': Entry(
        'The file is no checkpoint, is cut short, or holds no weights.',
        'Copy or download it again; a checkpoint holds a state_dict.',
    ),
    'teacher-checkpoint-unsafe': Entry(
        'The file holds objects that would run code when they are loaded.',
        'If you trust where it comes from, set teacher=dict(allow_pickle=True); if not, delete it.',
    ),
    'teacher-checkpoint-mismatch': Entry(
        'Keys or shapes in the checkpoint are not those of the model that the config of the teacher builds.',
        'Give the checkpoint and the config of one and the same training.',
    ),
    'teacher-nan': Entry(
        'Weights or buffers of the teacher are NaN or infinite.',
        'Take an earlier checkpoint of the teacher: this one is of a training that diverged.',
    ),
    'teacher-untrained': Entry(
        'The teacher finds nothing on validation images, or its metric is near zero (AP below 0.01) or within chance '
        '(accuracy below 1/K plus two standard errors, for K classes).',
        'Check that the checkpoint is that of a finished training, and classes, normalisation and val pipeline.',
    ),
    'swapped': Entry(
        'The teacher has fewer parameters than the student, or its checkpoint fits the student: they look swapped.',
        'Exchange them; if a smaller teacher is meant, pass --ignore swapped.',
    ),
    'kind-mismatch': Entry(
        'One model is a detector, the other a classifier.',
        'Take a teacher of the same task.',
    ),
    'equal-models': Entry(
        'A warning: student and teacher have the same weights, by name and shape.',
        'Take a smaller student or a better teacher; if a model is to teach its like, ignore it.',
    ),
    'no-common-stride': Entry(
        'Student and teacher have no feature level of the same stride.',
        'Choose necks whose levels overlap: change start_level, out_indices or num_outs of one of them.',
    ),
    'distiller-argument': Entry(
        'The distiller has no such argument, or the value is of another kind.',
        'Compare the arguments with the docstring of mmrkd.Distiller.',
    ),
    'teacher-argument': Entry(
        'The teacher has no such argument, or the value is of another kind.',
        'Give teacher=dict(cfg=..., ckpt=...); what belongs to its model stands in cfg.',
    ),
    'scope': Entry(
        'A scope is given twice, and differently: as _scope_ and before the type.',
        'Leave one of them out: _scope_ is where all parts of the model are looked for.',
    ),
    'no-method': Entry(
        'The list of methods is empty: the teacher would not be used.',
        'Add one, for instance methods=[dict(type="mmrkd.ERA")].',
    ),
    'method-unknown': Entry(
        'There is no method of that name.',
        'Take one of the suggested names; a method of yours needs custom_imports.',
    ),
    'method-argument': Entry(
        'A method has no such argument, or the value is of another kind or out of range.',
        'Compare the arguments with the docstring of the method.',
    ),
    'method-refused': Entry(
        'A method cannot work with this pair of models.',
        'See the reason; switch the term off that needs what is not there, or choose another method.',
    ),
    'heads-differ': Entry(
        'A term on logits (w_kd) is asked for, but the outputs of the two heads cannot be compared one by one.',
        'Set w_kd=0, or take a teacher whose head has the same layout as that of the student.',
    ),
    'tap-not-found': Entry(
        'A method wants the output of a module that the model does not have.',
        'Take one of the suggested names (model.named_modules() lists them all).',
    ),
    'zero-weight': Entry(
        'Every weight of a method is 0: it does nothing.',
        'Give it a weight or remove it.',
    ),
    'bad-weight': Entry(
        'A weight is negative or not a finite number.',
        'Give weights of 0 or more.',
    ),
    'train-length': Entry(
        'The training has no epoch or iteration.',
        'Set train_cfg.max_epochs (or max_iters) to a whole number of at least 1.',
    ),
    'learning-rate': Entry(
        'The learning rate is not a finite number above 0.',
        'Set optim_wrapper.optimizer.lr.',
    ),
    'schedule-spent': Entry(
        'The schedule leaves less than 2 % of the learning rate to a phase of a method that trains in phases.',
        'Begin it anew with each phase (CosineRestartLR): a second CosineAnnealingLR goes on where the first ended.',
    ),
    'views-missing': Entry(
        'A method compares several views of an image, and the training pipeline gives fewer.',
        'Put MultiView before the packing of the training pipeline; the message has the lines.',
    ),
    'views-mixed': Entry(
        'A method compares several views of an image, and batch augments (mixup, cutmix) mix the images of each.',
        'Take batch_augments out of the data_preprocessor, or use a method of one view.',
    ),
    'optimizer': Entry(
        'The optimiser or its schedule is missing or cannot be built.',
        'Correct optim_wrapper and param_scheduler in the config.',
    ),
    'nothing-trained': Entry(
        'The optimiser has no parameter of the student with a learning rate above 0.',
        'Check paramwise_cfg (lr_mult) in optim_wrapper.',
    ),
    'build-failed': Entry(
        'The distiller cannot be built, though its parts can.',
        'See the message.',
    ),
    'step-failed': Entry(
        'A training step on one batch raises an error.',
        'Train the plain student config: if that fails too, mend it first. MMRKD_DEBUG=1 shows the traceback.',
    ),
    'loss-not-finite': Entry(
        'A loss of the first batch is NaN or infinite.',
        'Check the annotations (boxes without area), the weights of the terms and the teacher.',
    ),
    'no-gradient': Entry(
        'No term of a method has a gradient on the student.',
        'Check detach_student and which terms have a weight.',
    ),
    'evaluation-failed': Entry(
        'The teacher cannot predict or be evaluated on validation images.',
        'Check val_dataloader and val_evaluator; MMRKD_DEBUG=1 shows the traceback.',
    ),
}


def table() -> str:
    """Returns all faults as a Markdown table, for ``docs/check_distill.md``."""
    rows = [f'| `{name}` | {entry.cause} | {entry.remedy} |' for name, entry in FAULTS.items()]
    return '\n'.join(['| name | cause | remedy |', '|---|---|---|', *rows])
