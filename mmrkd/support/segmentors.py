"""Which stock configs of mmseg stand for which family, and why some folders of its configs have none."""

from collections.abc import Iterator

ADE, CITY = '512x512', 'cityscapes-512x1024'

# Folder of mmseg's configs -> configs to try, without the ending.
SEGMENTORS = {
    'ann': (f'ann_r50-d8_4xb4-80k_ade20k-{ADE}',),
    'apcnet': (f'apcnet_r50-d8_4xb4-80k_ade20k-{ADE}',),
    'beit': ('beit-base_upernet_8xb2-160k_ade20k-640x640',),
    'bisenetv1': ('bisenetv1_r18-d32_4xb4-160k_cityscapes-1024x1024',),
    'bisenetv2': ('bisenetv2_fcn_4xb4-160k_cityscapes-1024x1024',),
    'ccnet': (f'ccnet_r50-d8_4xb4-80k_ade20k-{ADE}',),
    'cgnet': ('cgnet_fcn_4xb4-60k_cityscapes-680x680',),
    'convnext': (f'convnext-tiny_upernet_8xb2-amp-160k_ade20k-{ADE}',),
    'danet': (f'danet_r50-d8_4xb4-80k_ade20k-{ADE}',),
    'ddrnet': ('ddrnet_23-slim_in1k-pre_2xb6-120k_cityscapes-1024x1024',),
    'deeplabv3': (f'deeplabv3_r50-d8_4xb4-80k_ade20k-{ADE}',),
    'deeplabv3plus': (f'deeplabv3plus_r50-d8_4xb4-80k_ade20k-{ADE}',),
    'dmnet': (f'dmnet_r50-d8_4xb4-80k_ade20k-{ADE}',),
    'dnlnet': (f'dnl_r50-d8_4xb4-80k_ade20k-{ADE}',),
    'dpt': (f'dpt_vit-b16_8xb2-160k_ade20k-{ADE}',),
    'emanet': (f'emanet_r50-d8_4xb2-80k_{CITY}',),
    'encnet': (f'encnet_r50-d8_4xb4-80k_ade20k-{ADE}',),
    'erfnet': (f'erfnet_fcn_4xb4-160k_{CITY}',),
    'fastfcn': (f'fastfcn_r50-d32_jpu_enc_4xb4-80k_ade20k-{ADE}', f'fastfcn_r50-d32_jpu_psp_4xb4-80k_ade20k-{ADE}'),
    'fastscnn': (f'fast_scnn_8xb4-160k_{CITY}',),
    'fcn': (f'fcn_r50-d8_4xb4-80k_ade20k-{ADE}',),
    'gcnet': (f'gcnet_r50-d8_4xb4-80k_ade20k-{ADE}',),
    'hrnet': (f'fcn_hr18_4xb4-80k_ade20k-{ADE}',),
    'icnet': ('icnet_r18-d8_4xb2-80k_cityscapes-832x832',),
    'isanet': (f'isanet_r50-d8_4xb4-80k_ade20k-{ADE}',),
    'knet': (f'knet-s3_r50-d8_fcn_8xb2-adamw-80k_ade20k-{ADE}',),
    'mae': (f'mae-base_upernet_8xb2-amp-160k_ade20k-{ADE}',),
    'mask2former': (f'mask2former_r50_8xb2-160k_ade20k-{ADE}',),
    'maskformer': (f'maskformer_r50-d32_8xb2-160k_ade20k-{ADE}',),
    'mobilenet_v2': (f'mobilenet-v2-d8_fcn_4xb4-160k_ade20k-{ADE}',),
    'mobilenet_v3': (f'mobilenet-v3-d8-s_lraspp_4xb4-320k_{CITY}',),
    'nonlocal_net': (f'nonlocal_r50-d8_4xb4-80k_ade20k-{ADE}',),
    'ocrnet': (f'ocrnet_hr18s_4xb4-80k_ade20k-{ADE}',),
    'pidnet': ('pidnet-s_2xb6-120k_1024x1024-cityscapes',),
    'point_rend': (f'pointrend_r50_4xb4-160k_ade20k-{ADE}',),
    'poolformer': (f'fpn_poolformer_s12_8xb4-40k_ade20k-{ADE}',),
    'psanet': (f'psanet_r50-d8_4xb4-80k_ade20k-{ADE}',),
    'pspnet': (f'pspnet_r50-d8_4xb4-80k_ade20k-{ADE}',),
    'resnest': (f'resnest_s101-d8_fcn_4xb4-160k_ade20k-{ADE}',),
    'segformer': (f'segformer_mit-b0_8xb2-160k_ade20k-{ADE}',),
    'segmenter': (f'segmenter_vit-s_fcn_8xb1-160k_ade20k-{ADE}', f'segmenter_vit-s_mask_8xb1-160k_ade20k-{ADE}'),
    'segnext': (f'segnext_mscan-t_1xb16-adamw-160k_ade20k-{ADE}',),
    'sem_fpn': (f'fpn_r50_4xb4-160k_ade20k-{ADE}',),
    'setr': (f'setr_vit-l_naive_8xb2-160k_ade20k-{ADE}',),
    'stdc': (f'stdc1_4xb12-80k_{CITY}',),
    'swin': (f'swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-{ADE}',),
    'twins': (f'twins_svt-s_uperhead_8xb2-160k_ade20k-{ADE}',),
    'unet': ('unet-s5-d16_fcn_4xb4-40k_stare-128x128',),
    'upernet': (f'upernet_r18_4xb4-80k_ade20k-{ADE}',),
    'vit': (f'vit_deit-s16_upernet_8xb2-80k_ade20k-{ADE}',),
}

# Folder of mmseg's configs -> why it has no row.
NOT_SEGMENTORS = {
    '_base_': 'parts that the configs of the other folders share',
    'dsdl': 'another format of data, for the segmentors of the other folders',
    'san': 'needs a language model (a download) and the names of classes as texts',
    'vpd': 'regresses depths and tells no classes apart; its backbone is Stable Diffusion (a download)',
}


def segmentor_names() -> Iterator[str]:
    """Yields every config of mmseg that has a row, as ``'mmseg::folder/config.py'``."""
    for folder, configs in SEGMENTORS.items():
        yield from (f'mmseg::{folder}/{config}.py' for config in configs)
