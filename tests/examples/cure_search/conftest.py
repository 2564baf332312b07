from cli_fixtures import *  # noqa: F403
from training_fixtures import *  # noqa: F403
