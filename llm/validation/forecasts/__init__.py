"""Chapters of forecasts: which runs are foretold (`chapters`), and how a forecast becomes claims (`foretold`)."""

from fstsim.llm.validation.forecasts.chapters import forecasts as forecasts
from fstsim.llm.validation.forecasts.chapters import forecasts_further as forecasts_further
from fstsim.llm.validation.forecasts.foretold import FORECASTS as FORECASTS
from fstsim.llm.validation.forecasts.foretold import ceiling as ceiling
