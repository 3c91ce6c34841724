from helpers.inception import inception_weights  # noqa: F401
