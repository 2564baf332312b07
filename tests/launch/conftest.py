from launch_fixtures import *  # noqa: F403
