"""What a recipe can set, a section a module, with its defaults.

Where the write-up that the kit implements is silent (mel parameters, clip length, epochs, optimiser,
augmentation) the defaults are those of the best published systems. The text under each setting is its
description in docs/recipes.md. Imports birdkit only.
"""

from train.config.settings.augment import Augment as Augment
from train.config.settings.data import Data as Data
from train.config.settings.fit import Fit as Fit
from train.config.settings.fit import FocalGroup as FocalGroup
from train.config.settings.frontend import FrontEnd as FrontEnd
from train.config.settings.model import Model as Model
from train.config.settings.pseudo_labels import Alarms as Alarms
from train.config.settings.pseudo_labels import Limits as Limits
from train.config.settings.pseudo_labels import Pseudo as Pseudo
from train.config.settings.recipe import ModelEntry as ModelEntry
from train.config.settings.recipe import Postprocess as Postprocess
from train.config.settings.recipe import Recipe as Recipe
from train.config.settings.recipe import Round as Round
from train.config.settings.teacher import OutsideTeacher as OutsideTeacher
