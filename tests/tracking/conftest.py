from tracking_fixtures import *  # noqa: F403
