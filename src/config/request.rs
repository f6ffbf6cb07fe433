//! The keys of `type = "http"`: requests by template, and what their answers mean.

use std::time::Duration;

use http::HeaderName;

use super::status::StatusSet;
use super::template::{Condition, Template};

/// The keys of `type = "http"`.
#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    /// Base URL without a trailing slash.
    pub url: String,
    /// What delivers an episode.
    pub request: Request,
    /// Headers over the episode; those without a template are the sink's.
    pub headers: Vec<(HeaderName, Template)>,
    /// Answers that mean: it has it.
    pub success: StatusSet,
    /// Answers that mean: it is there already.
    pub delivered_if: Option<Condition>,
    /// What to do where the service has the episode and makes nothing of it.
    pub repair: Option<Repair>,
    /// How a delivery is proved; none = it can't be.
    pub confirm: Option<Proof>,
}

/// A request by template.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The method.
    pub method: Template,
    /// What follows the base URL: a path, and a query.
    pub path: Template,
    /// `Content-Type`, where there is a body.
    pub content_type: Template,
    /// The body; none, or one that comes out blank, is not sent.
    pub body: Option<Template>,
}

/// `repair`: asks the service to try again.
#[derive(Debug, Clone, PartialEq)]
pub struct Repair {
    /// The answer to a delivery that says so.
    pub when: Condition,
    /// What asks for it.
    pub request: Request,
}

/// `confirm`
#[derive(Debug, Clone, PartialEq)]
pub struct Proof {
    /// Follow each delivery up until it is seen. Else a success is a delivery, and only what is in doubt is looked up.
    pub read_back: bool,
    /// Without any episode of the sink appearing for this long, the sink is stalled.
    pub timeout: Duration,
    /// Time between two looks.
    pub poll: Duration,
    /// How long the effect of a request that broke off may take to show.
    pub settle: Duration,
    /// What asks for an episode.
    pub request: Request,
    /// The answer that says that it is there.
    pub present: Condition,
    /// Why it is not, and won't be: whatever this comes out as, unless that is blank.
    pub failed: Option<Template>,
}
