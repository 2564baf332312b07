"""Time of adaptive gradient clipping: all units at once, a loop over parameters, and one norm per tensor.

    python -m benchmarks --only clipping

The gradients are those of the hybrid network at full size; the time is also compared with that of a training step. The
loop is that of timm's ``utils/agc.py``. One norm per tensor is what the published code computes, which is not the
algorithm of the paper.
"""

from benchmarks.timing import Row, compared, in_turns, medians

FACTOR, EPS = 0.01, 1e-3
ROUNDS = {True: 5, False: 15}  # quick or not


def measure(quick: bool) -> list[Row]:
    import torch

    from fnostab.launch.process import keep_freed_memory
    from fnostab.ptychography.settings import TrialConfig
    from fnostab.ptychography.training.clipping import adaptive_gradient_clip_
    from fnostab.ptychography.training.step_cost import bare_trial

    torch.set_num_threads(1)
    keep_freed_memory()  # as in every training process
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    module, batch = bare_trial(TrialConfig.from_dotted({}), device)
    optimizer = module.configure_optimizers()
    patterns = batch()
    parameters = list(module.generator.parameters())

    def step() -> None:
        optimizer.zero_grad()
        module.training_step(patterns, 0).backward()
        optimizer.step()

    step()
    clippings = {
        "fnostab, unit by unit": lambda: adaptive_gradient_clip_(parameters, FACTOR, EPS),
        "loop over parameters, as timm": lambda: clip_in_a_loop(parameters),
        "one norm a tensor": lambda: clip_by_tensor(parameters),
    }
    times = medians(in_turns(clippings, ROUNDS[quick], device=device))
    steps = medians(in_turns({"step without clipping": step}, 2, device=device))
    share = {"step without clipping": steps.popitem()[1], "fnostab, unit by unit": next(iter(times.values()))}
    return [*compared("AGC, hybrid of 4 blocks", times, "ms"), *compared("AGC of a step", share, "ms")]


def clip_in_a_loop(parameters) -> None:
    for parameter in parameters:
        gradient = parameter.grad.detach()
        limit = unit_norms(parameter.detach()).clamp_(min=EPS).mul_(FACTOR)
        norm = unit_norms(gradient)
        clipped = gradient * (limit / norm.clamp(min=1e-6))
        gradient.copy_(clipped.where(norm >= limit, gradient))


def unit_norms(values):
    return values.norm(2.0) if values.ndim <= 1 else values.norm(2.0, dim=tuple(range(1, values.ndim)), keepdim=True)


def clip_by_tensor(parameters) -> None:
    for parameter in parameters:
        gradient = parameter.grad.detach()
        limit = parameter.detach().norm(2.0).clamp_(min=EPS).mul_(FACTOR)
        gradient.mul_((limit / gradient.norm(2.0).clamp(min=1e-6)).clamp_(max=1.0))
