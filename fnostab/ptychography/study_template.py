"""Template of a study file, written by `fnostab studies new`."""

TEMPLATE = """\
# A study: one question, asked of several arms over many seeds. Run it with: fnostab run {name}.yaml
# It trains the built-in networks. For a training of your own: fnostab studies new FILE.yaml --program
name: {name}
task: ptychography
description: Does a smaller learning rate, or clipping, make the network fail less often?

control: control        # the arm that the others are compared with
metric: {{name: val_loss, of: best}}
seeds: 5                # a count, or a list: [0, 3, 5]

defaults:               # of all arms, over those of the profile
  data.set_phi: true    # the object has a phase, so that phase metrics mean something
  model.architecture: hybrid

arms:                   # each is a set of differences from the defaults
  control: {{execution.gradient_clip_val: null}}
  slow:                 # one arm for each value: slow_0.001, slow_0.003
    grid: {{training.learning_rate: [1e-3, 3e-3]}}
  clipped:
    inherits: control   # settings (and the grid) of another arm; what stands here wins
    execution.gradient_clip_val: 1.0

# roles: {{architecture: ..., clipping: ...}} names the arms that GOLD and SILVER would be about.
# profiles: {{small: {{...}}, full: {{...}}}} has settings for one size alone.
"""
