from training_fixtures import *  # noqa: F403
