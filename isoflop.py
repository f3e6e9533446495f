"""The public names of isoflop; nothing is implemented here."""

from analysis.fit.fit_result import Fit, Prediction
from analysis.fit.fitting import fit
from analysis.laws.law import Bounds, Law, Term
from analysis.points.sweep_frame import frame_of
from analysis.sweep.sweep_fit import SweepFit, fit_sweep
from search.asked.experiment import Experiment, load_experiment
from search.record.ledger import Ledger
from search.record.trial import Outcome, TrainingRecipe, TrialConfig
from spaces.architecture import Architecture
from spaces.budget import Axes, Budget, Solution, solve
from spaces.certificate import FlopCertificate, certify
from spaces.errors import InfeasibleError, RequestError
from spaces.flops import (
    FlopsByConvention,
    forward_flops_grid,
    forward_flops_per_token,
    train_flops_per_token,
)
from spaces.model import LanguageModel
from spaces.parameters import ParameterCounts, count_parameters

__all__ = [
    "Architecture",
    "Axes",
    "Bounds",
    "Budget",
    "Experiment",
    "Fit",
    "FlopCertificate",
    "FlopsByConvention",
    "InfeasibleError",
    "LanguageModel",
    "Law",
    "Ledger",
    "Outcome",
    "ParameterCounts",
    "Prediction",
    "RequestError",
    "Solution",
    "SweepFit",
    "Term",
    "TrainingRecipe",
    "TrialConfig",
    "certify",
    "count_parameters",
    "fit",
    "fit_sweep",
    "forward_flops_grid",
    "forward_flops_per_token",
    "frame_of",
    "load_experiment",
    "solve",
    "train_flops_per_token",
]
