//! A row of the results: what was measured, beside its floor and its goal.

use serde::{Deserialize, Serialize};

use crate::stats::{median, ratios};

/// One thing that was measured, in several rounds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    /// The scenario that measured it.
    pub(crate) scenario: String,
    pub(crate) what: String,
    pub(crate) unit: String,
    /// Of the gateway, by round.
    pub(crate) gateway: Vec<f64>,
    /// Of the floor, by round.
    pub(crate) floor: Option<Floor>,
    pub(crate) goal: Option<Goal>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Floor {
    /// Such as `LOGINFLOOR`, or another state of the gateway itself, such as `idle`.
    pub(crate) name: String,
    pub(crate) values: Vec<f64>,
}

/// What it should be.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Goal {
    pub(crate) of: Of,
    pub(crate) better: Better,
    pub(crate) reach: f64,
    pub(crate) moonshot: Option<f64>,
}

/// What a goal is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Of {
    /// The gateway by its floor.
    Ratio,
    /// The gateway's own figure.
    Value,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Better {
    Less,
    More,
}

/// How far a goal is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The moonshot too.
    Moonshot,
    Reach,
    /// Neither.
    Short,
}

impl Row {
    pub(crate) fn new(
        scenario: &str,
        what: impl Into<String>,
        unit: &str,
        gateway: Vec<f64>,
    ) -> Self {
        Self {
            scenario: scenario.to_owned(),
            what: what.into(),
            unit: unit.to_owned(),
            gateway,
            floor: None,
            goal: None,
        }
    }

    /// The floor of the same rounds.
    pub(crate) fn floor(mut self, name: &str, values: Vec<f64>) -> Self {
        self.floor = Some(Floor {
            name: name.to_owned(),
            values,
        });
        self
    }

    /// The gateway by its floor should be at least this.
    pub(crate) fn ratio_at_least(self, reach: f64, moonshot: f64) -> Self {
        self.goal(Of::Ratio, Better::More, reach, Some(moonshot))
    }

    /// The gateway by its floor should be at the most this.
    pub(crate) fn ratio_at_most(self, reach: f64, moonshot: f64) -> Self {
        self.goal(Of::Ratio, Better::Less, reach, Some(moonshot))
    }

    /// The gateway's figure should be at the most this.
    pub(crate) fn value_at_most(self, reach: f64, moonshot: f64) -> Self {
        self.goal(Of::Value, Better::Less, reach, Some(moonshot))
    }

    pub(crate) fn goal(
        mut self,
        of: Of,
        better: Better,
        reach: f64,
        moonshot: Option<f64>,
    ) -> Self {
        self.goal = Some(Goal {
            of,
            better,
            reach,
            moonshot,
        });
        self
    }

    /// The gateway by its floor, round by round; empty without a floor.
    pub(crate) fn ratios(&self) -> Vec<f64> {
        let floor = self.floor.as_ref();
        floor.map_or_else(Vec::new, |floor| ratios(&self.gateway, &floor.values))
    }

    /// What the goal is about, round by round.
    pub(crate) fn judged(&self, goal: &Goal) -> Vec<f64> {
        match goal.of {
            Of::Ratio => self.ratios(),
            Of::Value => self.gateway.clone(),
        }
    }

    /// By the median of what the goal is about.
    pub(crate) fn verdict(&self) -> Option<Verdict> {
        let goal = self.goal?;
        let value = median(&self.judged(&goal));
        Some(match goal.moonshot {
            Some(moonshot) if goal.better.meets(value, moonshot) => Verdict::Moonshot,
            _ if goal.better.meets(value, goal.reach) => Verdict::Reach,
            _ => Verdict::Short,
        })
    }
}

impl Better {
    fn meets(self, value: f64, bound: f64) -> bool {
        match self {
            Self::Less => value <= bound,
            Self::More => value >= bound,
        }
    }
}
