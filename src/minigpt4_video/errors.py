"""Failures that the input causes. Each message is one sentence that says what was wrong, where, and what to do."""


class UserError(Exception):
    """Something the person can mend: the command line shows the message alone and exits with status 2."""


class MediaError(UserError):
    """A video, picture or subtitle file that cannot be used."""


class PlanError(UserError):
    """What was asked does not fit the model's context window."""


class ModelError(UserError):
    """A model folder, preset or device that cannot be used."""


class CheckpointError(UserError):
    """An original checkpoint that does not fit what it is converted with."""


class RecipeError(UserError):
    """A training recipe or data set that cannot be used."""


class DataError(UserError):
    """A data set that cannot be read at all; a row that cannot is a value, `data.sample.Flaw`."""


class EndpointError(UserError):
    """A language model behind an address that refuses, or does not answer as one."""


class LabellingError(UserError):
    """A labelling job that cannot be planned, resumed or gone on with."""
