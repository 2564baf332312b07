from launch_fixtures import *  # noqa: F403
from report_fixtures import *  # noqa: F403
