"""The settings of a trial of the built-in task that takes a second."""

TINY = {  # 81 patterns, 11 steps an epoch; it does not collapse by itself
    "data.N": 16,
    "data.object_size": 48,
    "data.n_lines": 30,
    "data.set_phi": True,
    "data.scan_stride_test": 8,
    "model.hidden_channels": 4,
    "model.fno_blocks": 2,
    "model.fno_modes": 4,
    "training.epochs": 2,
    "training.batch_size": 8,
    "training.learning_rate": 5e-3,
    "execution.device": "cpu",
    "monitor.stagnated_detail": 1e-9,  # so few steps show no details
}
