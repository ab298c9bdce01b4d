//! What `vipd status` shows of damping.

use serde::{Deserialize, Serialize};
use vipd_control::damping::Figures;

/// What damping (RFC 2439) makes of a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Damping {
    /// The penalty that a router would have counted by now.
    pub penalty: f64,
    /// From this penalty on a router that damps does not use the prefix.
    pub suppress: u32,
    /// And then not until the penalty is below this.
    pub reuse: u32,
    /// Whether a router that damps would not use it at present.
    pub suppressed: bool,
    /// A better announcement waits for so long; 0: nothing waits.
    pub wait_seconds: f64,
}

impl Default for Damping {
    /// Nothing was counted, by the figures that most routers have.
    fn default() -> Self {
        Self {
            penalty: 0.0,
            suppress: Figures::USUAL.suppress,
            reuse: Figures::USUAL.reuse,
            suppressed: false,
            wait_seconds: 0.0,
        }
    }
}

impl Damping {
    /// The penalty and its limit, unless it is as good as none.
    #[must_use]
    pub fn words(&self) -> Option<String> {
        // Rounded down, so that what has not come to a limit does not read as if.
        let penalty = self.penalty.floor();
        if penalty < 1.0 {
            return None;
        }
        Some(if self.suppressed {
            format!(
                "flap penalty {penalty}: routers that damp ignore it until that is below {}",
                self.reuse
            )
        } else {
            format!(
                "flap penalty {penalty}: routers that damp ignore it from {} on",
                self.suppress
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Damping;

    #[test]
    fn a_penalty_is_told_with_the_limit_that_comes_next() {
        let check = |sentence, penalty, suppressed, expected: Option<&str>| {
            let damping = Damping {
                penalty,
                suppressed,
                ..Damping::default()
            };
            assert_eq!(damping.words().as_deref(), expected, "{sentence}");
        };
        check("nothing was counted", 0.0, false, None);
        check("it is as good as forgotten", 0.99, false, None);
        check(
            "it has flapped",
            1640.4,
            false,
            Some("flap penalty 1640: routers that damp ignore it from 2000 on"),
        );
        check(
            "almost too often",
            1999.9,
            false,
            Some("flap penalty 1999: routers that damp ignore it from 2000 on"),
        );
        check(
            "too often",
            2400.0,
            true,
            Some("flap penalty 2400: routers that damp ignore it until that is below 750"),
        );
        check(
            "it must be forgotten further than to the limit that it came over",
            1640.4,
            true,
            Some("flap penalty 1640: routers that damp ignore it until that is below 750"),
        );
    }

    #[test]
    fn an_agent_that_tells_no_limits_has_the_usual_ones() {
        let older = r#"{"penalty": 1640.0, "suppressed": false, "wait_seconds": 0.0}"#;
        let damping: Damping = serde_json::from_str(older).expect("it is understood");
        assert_eq!((damping.suppress, damping.reuse), (2000, 750));
    }
}
