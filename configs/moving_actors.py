"""The embedded benchmark: trains on two CPU cores in minutes."""

from configs import common


def get_config():
    config = common.get_config()
    return config.lock()
