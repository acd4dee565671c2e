//! What differs between two runs, in words.

use serde_json::Value;

use super::{JobOptions, RunRecord};

impl JobOptions {
    /// The first thing that differs from another job, with both of its values. What is timed after a run, or scored between its
    /// steps, is no part of what it gives.
    pub fn difference(&self, other: &JobOptions) -> Option<String> {
        let fields = |job: &JobOptions| match serde_json::to_value(job) {
            Ok(Value::Object(mut fields)) => {
                fields.remove("skip_full_size");
                fields.remove("val_every");
                fields
            }
            _ => serde_json::Map::new(),
        };
        let (ours, theirs) = (fields(self), fields(other));
        let name = ours.keys().chain(theirs.keys()).find(|name| ours.get(*name) != theirs.get(*name))?;
        let show = |value: Option<&Value>| value.map_or("absent".into(), Value::to_string);
        Some(format!("its `{name}` is {}, not {}", show(ours.get(name)), show(theirs.get(name))))
    }
}

impl RunRecord {
    /// The first thing that differs from what another run is of: program, device, model text or job.
    pub fn difference(&self, other: &RunRecord) -> Option<String> {
        if self.pg != other.pg {
            return Some(format!("it is of pg {}, not {}", self.pg, other.pg));
        }
        if self.device != other.device {
            return Some(format!("it ran on {}, not on {}", self.device, other.device));
        }
        let job = self.job.difference(&other.job);
        job.or_else(|| (self.sources != other.sources).then(|| "its model text is another".into()))
            .or_else(|| (self.init_hash != other.init_hash).then(|| "its initial weights are others".into()))
            .or_else(|| Some(format!("{} is another", self.text.difference(&other.text)?)))
    }

    /// The first thing besides the seed that differs from what another run is of.
    pub fn difference_besides_seed(&self, other: &RunRecord) -> Option<String> {
        let mut same_seed = self.clone();
        same_seed.job.seed = other.job.seed;
        same_seed.difference(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_difference_is_named_with_both_values() {
        let job = JobOptions { steps: Some(40), ..JobOptions::default() };
        assert_eq!(job.difference(&job.clone()), None);
        assert_eq!(job.difference(&JobOptions { skip_full_size: true, ..job.clone() }), None);
        assert_eq!(job.difference(&JobOptions { val_every: Some(5), ..job.clone() }), None);
        let other = JobOptions { steps: Some(50), ..job.clone() };
        assert_eq!(job.difference(&other).as_deref(), Some("its `steps` is 40, not 50"));
        let other = JobOptions { overrides: vec![("A".into(), "1".into())], ..job.clone() };
        assert_eq!(job.difference(&other).as_deref(), Some("its `overrides` is [], not [[\"A\",\"1\"]]"));
    }
}
