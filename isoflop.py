"""The public names of isoflop; nothing is implemented here."""

from analysis.fit.fit_result import Fit, Prediction
from analysis.fit.fitting import fit
from analysis.laws.law import Bounds, Law, Term
from analysis.points.sweep_frame import frame_of, sweep_frame
from analysis.report.report_page import WrittenReport, report
from analysis.sweep.leaderboard import Leaderboard, best
from analysis.sweep.sweep_fit import SweepFit, fit_sweep
from analysis.sweep.sweep_status import SweepStatus, status
from runners.driver import SweepEvent, SweepSummary
from runners.plan import Plan, plan
from runners.sweep import run_sweep
from search.asked.experiment import Experiment, load_experiment
from search.propose.contract import Capped, Done, Proposed, Proposer, Waiting
from search.record.ledger import Ledger
from search.record.trial import Outcome, TrainingRecipe, TrialConfig
from spaces.architecture import Architecture, CommonFields
from spaces.arms.contract import Arm, Batch, Objective, Readout, find_arm
from spaces.arms.registry import load_arms
from spaces.axes import Axes, Axis
from spaces.budget import Budget, Solution, solve
from spaces.certificate import FlopCertificate, certify
from spaces.errors import InfeasibleError, RequestError
from spaces.flops import (
    FlopsByConvention,
    forward_flops_grid,
    forward_flops_per_token,
    train_flops_per_token,
)
from spaces.model import LanguageModel
from spaces.parameters import ParameterCounts, count_active_parameters, count_parameters
from spaces.price import Price, plain_price

__all__ = [
    "Architecture",
    "Arm",
    "Axes",
    "Axis",
    "Batch",
    "Bounds",
    "Budget",
    "Capped",
    "CommonFields",
    "Done",
    "Experiment",
    "Fit",
    "FlopCertificate",
    "FlopsByConvention",
    "InfeasibleError",
    "LanguageModel",
    "Law",
    "Leaderboard",
    "Ledger",
    "Objective",
    "Outcome",
    "ParameterCounts",
    "Plan",
    "Prediction",
    "Price",
    "Proposed",
    "Proposer",
    "Readout",
    "RequestError",
    "Solution",
    "SweepEvent",
    "SweepFit",
    "SweepStatus",
    "SweepSummary",
    "Term",
    "TrainingRecipe",
    "TrialConfig",
    "Waiting",
    "WrittenReport",
    "best",
    "certify",
    "count_active_parameters",
    "count_parameters",
    "find_arm",
    "fit",
    "fit_sweep",
    "forward_flops_grid",
    "forward_flops_per_token",
    "frame_of",
    "load_arms",
    "load_experiment",
    "plain_price",
    "plan",
    "report",
    "run_sweep",
    "solve",
    "status",
    "sweep_frame",
    "train_flops_per_token",
]
