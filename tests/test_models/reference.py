"""ERA (arXiv 2508.16050) written a second time, out of its formulas alone: plain tensors, none of the package's code.

Weights come in as a mapping from names to tensors (a state dict, or the parameters themselves where gradients are
compared). Features are lists over levels, each ``(N, C)`` or ``(N, C, H, W)``.
"""

import math

import torch
import torch.nn.functional as F

from mmrkd.testing import build_model, save_random_teacher

NORM_EPS = 1e-5


def mbrnet(
    feats,
    weights,
    num_branches,
    depths,
    wiring='parallel',
    act='relu',
    norm='BN',
    groups=1,
    shared_close=False,
    norm_per_level=False,
    training=True,
):
    """Returns h_0 and [D_1, ..., D_N], each a list over levels."""
    initial, increments = [], [[] for _ in range(num_branches)]
    for level, f_s in enumerate(feats):
        initial.append(affine(f_s, weights, 'projection'))
        opened = []  # outputs of the branches before the layer that closes them
        for i in range(num_branches):
            if wiring == 'parallel':
                x = f_s
            elif wiring == 'accumulate':
                x = f_s + sum(opened) if opened else f_s
            elif wiring == 'cascade':
                x = opened[i - 1] if i else f_s
            else:
                x = per_channel(weights['alpha'][i], f_s) * f_s
                for j in range(i):
                    x = x + per_channel(weights['beta'][i, j], f_s) * opened[j]
            for b in range(depths[i]):
                name = f'branches.{i}.{b}'
                x = affine(x, weights, f'{name}.layer')
                x = normalised(x, weights, f'{name}.norms.{level if norm_per_level else 0}', norm, groups, training)
                if b < depths[i] - 1:
                    x = activated(x, act, weights.get(f'{name}.act.weight'))
            opened.append(x)
            if 'closes.0.weight' in weights:
                x = affine(x, weights, f'closes.{0 if shared_close else i}')
            increments[i].append(x)
    return initial, increments


def affine(x, weights, name):
    weight, bias = weights[f'{name}.weight'], weights[f'{name}.bias']
    if weight.dim() == 2:
        return torch.einsum('nc,oc->no', x, weight) + bias
    return F.conv2d(x, weight, bias, stride=1, padding=(weight.shape[-1] - 1) // 2)


def per_channel(values, like):
    return values.reshape(1, -1, *[1] * (like.dim() - 2))


def normalised(x, weights, name, norm, groups, training):
    """BN over the batch, LN over one sample, GN over groups of channels of one sample; biased variances."""
    rest = tuple(range(2, x.dim()))
    if norm == 'BN' and not training:
        mean, var = (per_channel(weights[f'{name}.running_{s}'], x) for s in ('mean', 'var'))
        flat = x
    elif norm == 'BN':
        flat, over = x, (0, *rest)
    elif norm == 'LN':
        flat, over = x, (1, *rest)
    else:
        flat = x.reshape(x.shape[0], groups, -1)
        over = (2,)
    if norm != 'BN' or training:
        mean = flat.mean(over, keepdim=True)
        var = ((flat - mean) ** 2).mean(over, keepdim=True)
    out = ((flat - mean) / torch.sqrt(var + NORM_EPS)).reshape(x.shape)
    return out * per_channel(weights[f'{name}.weight'], x) + per_channel(weights[f'{name}.bias'], x)


def activated(x, act, slope=None):
    if act == 'relu':
        return torch.where(x > 0, x, torch.zeros_like(x))
    if act == 'leaky_relu':
        return torch.where(x > 0, x, 0.01 * x)
    if act == 'prelu':
        return torch.where(x > 0, x, slope * x)
    if act == 'gelu':
        return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))
    return x * torch.tanh(torch.log1p(torch.exp(x)))  # mish


def partial_sums(initial, increments):
    """[h_0, ..., h_N], each a list over levels."""
    sums = [initial]
    for increment in increments:
        sums.append([h + d for h, d in zip(sums[-1], increment)])
    return sums


def level_mse(estimates, targets):
    """Mean over the elements of each level, then over levels; the target is a constant."""
    return sum(((e - t.detach()) ** 2).mean() for e, t in zip(estimates, targets)) / len(estimates)


def softmax_kl(z_p, z_q, tau):
    """KL(softmax(z_p / tau) || softmax(z_q / tau)) * tau^2, mean over the batch; p is a constant."""
    p = torch.exp(z_p.detach() / tau) / torch.exp(z_p.detach() / tau).sum(1, keepdim=True)
    q = torch.exp(z_q / tau) / torch.exp(z_q / tau).sum(1, keepdim=True)
    return (p * (torch.log(p) - torch.log(q))).sum(1).mean() * tau**2


def bernoulli_kl(z_p, z_q, tau):
    """Sum of KL(sigmoid(z_p / tau) || sigmoid(z_q / tau)) * tau^2 over the teacher's soft count of objects."""
    p, q = torch.sigmoid(z_p.detach() / tau), torch.sigmoid(z_q / tau)
    divergence = p * torch.log(p / q) + (1 - p) * torch.log((1 - p) / (1 - q))
    count = max(1.0, float(p.amax(1).sum()))
    return divergence.sum() * tau**2 / count


def cross_entropy(logits, labels):
    chosen = logits[torch.arange(len(labels)), labels]
    return (torch.log(torch.exp(logits).sum(1)) - chosen).mean()


def era_losses(
    initial,
    increments,
    teacher_feats,
    judge,
    kl,
    student_logits,
    teacher_logits,
    scales,
    w_kd,
    w_feat,
    w_res,
    w_twi,
    judged,
    twi_kd=False,
):
    """The whole loss but the student's own task loss.

    Args:
        initial: h_0, in the units in which features are compared.
        increments: [D_1, ..., D_N], likewise.
        teacher_feats: f_t, likewise.
        judge: Takes h_i, returns the teacher's task loss on it and the logits of the teacher's head.
        kl: Takes (teacher's logits, other logits), returns their divergence at the temperature of the KL term.
        student_logits: z_s.
        teacher_logits: z_t.
        scales: [s_1, ..., s_N].
        w_kd, w_feat, w_res, w_twi: Weights.
        judged: Indices i of the partial sums h_i that the teacher's head judges.
        twi_kd: Whether the judgement is the mean of task loss and KL term.
    """
    count = len(increments)
    losses = {}
    if w_kd:
        losses['loss_kd'] = w_kd * kl(teacher_logits, student_logits)
    if w_feat:
        losses['loss_feat'] = w_feat * level_mse(initial, teacher_feats)
    residual = [f - h.detach() for f, h in zip(teacher_feats, initial)]
    for i in range(1, count + 1):
        increment = increments[i - 1]
        if w_res:
            losses[f'loss_res_{i}'] = scales[i - 1] / count * w_res * level_mse(increment, residual)
        residual = [r - d.detach() for r, d in zip(residual, increment)]
    sums = partial_sums(initial, increments)
    for i in judged:
        task, logits = judge(sums[i])
        judgement = w_twi * task
        if twi_kd:
            judgement = (judgement + w_kd * kl(teacher_logits, logits)) / 2
        losses[f'loss_twi_{i}'] = judgement if i == 0 else scales[i - 1] / count * judgement
    return losses


def task_total(losses):
    """Sum of a detector's loss dictionary."""
    return sum(sum(v) if isinstance(v, list) else v for k, v in losses.items() if 'loss' in k)


def standardized(feats, by):
    """In units of each channel of ``by``; one that is as good as dead counts the less the less it moves."""
    mean, std = by.mean((0, 2, 3), keepdim=True), by.std((0, 2, 3), unbiased=False, keepdim=True)
    dead = torch.minimum(std.mean(), (0.01 * std.mean()) ** 2 / std.clamp(min=1e-12))
    return (feats - mean) / torch.maximum(std, dead).clamp(min=1e-3)


def second_teacher(teacher, double=True):
    """Another copy of a teacher, in evaluation mode, which no line of the package has touched."""
    model = build_model(teacher['cfg'])
    model.load_state_dict(torch.load(teacher['ckpt'], weights_only=True)['state_dict'])
    return (model.double() if double else model).eval()


def reached(loss, parts):
    """Names of the parts (name -> parameters) to which a loss gives a gradient that is not zero."""
    found = set()
    for name, parameters in parts.items():
        gradients = torch.autograd.grad(loss, list(parameters), retain_graph=True, allow_unused=True)
        if any(g is not None and g.abs().max() > 0 for g in gradients):
            found.add(name)
    return found


def stir(module, seed=5):
    """Gives every parameter and running statistic a value that does not hide whether and where it is used."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            fan_in = parameter[0].numel() if parameter.dim() > 1 else 4
            parameter.normal_(generator=generator).mul_(fan_in**-0.5)
            if '.norms.' in name and name.endswith('weight'):
                parameter.add_(1)
        for name, buffer in module.named_buffers():
            if name.endswith('running_mean'):
                buffer.normal_(generator=generator)
            elif name.endswith('running_var'):
                buffer.uniform_(0.5, 2, generator=generator)
    return module


def opinionated_teacher(cfg, folder, seed):
    """A random teacher whose head says something: fresh heads draw from N(0, 0.01) and answer about the same to all."""
    teacher = save_random_teacher(cfg, folder, seed)
    checkpoint = torch.load(teacher['ckpt'], weights_only=True)
    generator = torch.Generator().manual_seed(seed)
    for name, value in checkpoint['state_dict'].items():
        if name.endswith('running_mean'):
            value.normal_(std=0.1, generator=generator)
        elif name.endswith('running_var'):
            value.uniform_(0.5, 1.5, generator=generator)
        elif 'head' in name and name.endswith('weight'):
            value.mul_(10)
    torch.save(checkpoint, teacher['ckpt'])
    return teacher
