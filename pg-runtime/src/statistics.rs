//! Statistics of a few numbers: means, medians, and Student's t-tests of differences of scores.

use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, StudentsT};

/// Mean and spread of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Values.
    pub n: usize,
    /// Their mean.
    pub mean: f64,
    /// Sample standard deviation, over `n − 1`; `null` for a single value.
    pub std: Option<f64>,
}

impl Summary {
    /// Of these values; `None` where there are none.
    pub fn of(values: &[f64]) -> Option<Summary> {
        let n = values.len();
        if n == 0 {
            return None;
        }
        // Of equal values the mean is one of them and the spread is none, whatever their sum rounds to.
        let is_one = values.iter().all(|value| *value == values[0]);
        let mean = if is_one { values[0] } else { values.iter().sum::<f64>() / n as f64 };
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        Some(Summary { n, mean, std: (n > 1).then(|| (squares / (n - 1) as f64).sqrt()) })
    }

    /// Bounds of the 95 % confidence interval of the mean, by Student's t; `None` where the values say nothing of a spread.
    pub fn interval95(&self) -> Option<[f64; 2]> {
        let error = self.variance_of_mean().ok()?.sqrt();
        let distribution = StudentsT::new(0.0, 1.0, (self.n - 1) as f64).ok()?;
        let half_width = distribution.inverse_cdf(0.975) * error;
        (error > 0.0).then_some([self.mean - half_width, self.mean + half_width])
    }

    /// Variance of the mean.
    fn variance_of_mean(&self) -> Result<f64, NoTest> {
        let std = self.std.ok_or(NoTest::TooFew)?;
        Ok(std * std / self.n as f64)
    }
}

/// The middle value, or the mean of the two middle ones; sorts. NaN of nothing.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values {
        [] => f64::NAN,
        odd if odd.len() % 2 == 1 => odd[middle],
        even => f64::midpoint(even[middle - 1], even[middle]),
    }
}

/// A t-test of a difference of means, or of a mean and a number.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TTest {
    /// The difference.
    pub difference: f64,
    /// Bounds of its 95 % confidence interval.
    pub interval95: [f64; 2],
    /// The difference over its standard error.
    pub t: f64,
    /// Degrees of freedom; those of Welch and Satterthwaite for two samples.
    pub degrees_of_freedom: f64,
    /// Two-sided p-value of no difference.
    pub p: f64,
}

/// Why there is no test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoTest {
    /// A sample of fewer than two values has no spread.
    TooFew,
    /// No value differs from another of its sample, as of runs that do not depend on their seed.
    NoSpread,
}

impl std::fmt::Display for NoTest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            NoTest::TooFew => "fewer than two runs: no p-value",
            NoTest::NoSpread => "the runs do not differ at all: no p-value",
        })
    }
}

/// Welch's t-test: samples `a` and `b` may differ in size and variance. The difference is mean of `a` − mean of `b`.
///
/// # Errors
/// [`NoTest`], where the samples say nothing of a spread.
pub fn welch(a: &[f64], b: &[f64]) -> Result<TTest, NoTest> {
    let (a, b) = (Summary::of(a).ok_or(NoTest::TooFew)?, Summary::of(b).ok_or(NoTest::TooFew)?);
    let (va, vb) = (a.variance_of_mean()?, b.variance_of_mean()?);
    let weight = va * va / (a.n - 1) as f64 + vb * vb / (b.n - 1) as f64;
    test(a.mean - b.mean, va + vb, (va + vb).powi(2) / weight)
}

/// Student's t-test of a sample and a number. The difference is mean of `a` − `mean`.
///
/// # Errors
/// As [`welch`].
pub fn one_sample(a: &[f64], mean: f64) -> Result<TTest, NoTest> {
    let a = Summary::of(a).ok_or(NoTest::TooFew)?;
    test(a.mean - mean, a.variance_of_mean()?, (a.n - 1) as f64)
}

fn test(difference: f64, variance: f64, degrees_of_freedom: f64) -> Result<TTest, NoTest> {
    let error = variance.sqrt();
    let distribution = StudentsT::new(0.0, 1.0, degrees_of_freedom).map_err(|_| NoTest::NoSpread)?;
    if error <= 0.0 {
        return Err(NoTest::NoSpread);
    }
    let t = difference / error;
    let half_width = distribution.inverse_cdf(0.975) * error;
    Ok(TTest {
        difference,
        interval95: [difference - half_width, difference + half_width],
        t,
        degrees_of_freedom,
        p: 2.0 * distribution.sf(t.abs()),
    })
}

impl TTest {
    /// One-sided p-value of a difference that is not below 0.
    pub fn p_below(&self) -> f64 {
        if self.t < 0.0 { self.p / 2.0 } else { 1.0 - self.p / 2.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_have_no_spread() {
        for value in [0.1, 0.2, 1.0 / 3.0, 2.2114, 3.9353] {
            for n in 2..12 {
                let equal = vec![value; n];
                let summary = Summary::of(&equal).unwrap();
                assert_eq!((summary.mean, summary.std, summary.interval95()), (value, Some(0.0), None));
                assert_eq!(welch(&equal, &[1.5; 3]), Err(NoTest::NoSpread));
                assert_eq!(one_sample(&equal, 1.5), Err(NoTest::NoSpread));
            }
        }
    }

    fn close(ours: f64, theirs: f64) {
        let off = (ours - theirs).abs() / theirs.abs();
        assert!(off < 1e-9, "{ours:e} is not {theirs:e}: off by {off:e}");
    }

    /// `t`, degrees of freedom, `p` and the interval of `scipy.stats.ttest_ind(a, b, equal_var=False)`, SciPy 1.17.1.
    #[test]
    fn welch_is_scipys() {
        type Case = (&'static [f64], &'static [f64], [f64; 5]);
        let cases: [Case; 4] = [
            (
                &[1.1192, 1.1200, 1.1189],
                &[1.1218, 1.1227, 1.1212],
                [
                    -4.6424388855387715,
                    3.716636481242023,
                    0.011564434142395358,
                    -0.004095073626674953,
                    -0.000971593039991156,
                ],
            ),
            (
                &[3.8349, 3.8397, 3.8433],
                &[3.8882, 3.8679, 3.8713],
                [
                    -5.421655807521097,
                    2.5876986246021403,
                    0.01785623430266809,
                    -0.059991897776061856,
                    -0.013008102223937657,
                ],
            ),
            (
                &[2.211, 2.213],
                &[2.286, 2.281, 2.290, 2.279, 2.288],
                [
                    -31.503641071295693,
                    4.99493772880943,
                    6.119961520761999e-07,
                    -0.07874202483865772,
                    -0.06685797516134223,
                ],
            ),
            (
                &[1.0, 1.001, 0.999, 1.0005, 1.0],
                &[1.5, 1.5001, 1.4999],
                [
                    -1484.924270202202,
                    4.2383134738771515,
                    2.8144406772706317e-13,
                    -0.5008143240158709,
                    -0.49898567598412913,
                ],
            ),
        ];
        for (a, b, [t, df, p, low, high]) in cases {
            let test = welch(a, b).unwrap();
            close(test.t, t);
            close(test.degrees_of_freedom, df);
            close(test.p, p);
            close(test.interval95[0], low);
            close(test.interval95[1], high);
            let turned = welch(b, a).unwrap();
            assert_eq!((turned.t, turned.p), (-test.t, test.p));
        }
    }

    /// `t`, `p`, and `p` of `alternative="less"`, of `scipy.stats.ttest_1samp(a, mean)`, SciPy 1.17.1.
    #[test]
    fn one_sample_is_scipys() {
        let losses = [1.88976776, 1.89110239, 1.8891919];
        let scores = [1.1192, 1.1200, 1.1189];
        for (a, mean, [t, p, less]) in [
            (losses, 1.8978 - 0.005, [-4.911980178274225, 0.039035668939739185, 0.019517834469869592]),
            (scores, 1.1194, [-0.10153461651266346, 0.9283885125965468, 0.4641942562982734]),
            (scores, 1.1184, [2.9445038788875313, 0.09857868536769462, 0.9507106573161527]),
        ] {
            let test = one_sample(&a, mean).unwrap();
            close(test.t, t);
            close(test.p, p);
            close(test.p_below(), less);
        }
    }

    #[test]
    fn the_median_of_an_even_count_is_between_the_two_middle_values() {
        assert_eq!(median(&mut [4.0, 1.0, 3.0, 2.0]), 2.5);
        assert_eq!(median(&mut [9.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&mut [5.0]), 5.0);
        assert!(median(&mut []).is_nan());
    }

    /// `scipy.stats.t.interval(0.95, 2, mean, sem)` of three values, SciPy 1.17.1.
    #[test]
    fn the_interval_of_a_mean_is_students() {
        let [low, high] = Summary::of(&[1.0, 2.0, 3.0]).unwrap().interval95().unwrap();
        close(low, 2.0 - 4.302652729749464 / 3f64.sqrt());
        close(high, 2.0 + 4.302652729749464 / 3f64.sqrt());
        assert_eq!(Summary::of(&[1.0]).unwrap().interval95(), None);
        assert_eq!(Summary::of(&[1.0, 1.0]).unwrap().interval95(), None);
    }

    #[test]
    fn without_a_spread_there_is_no_test() {
        assert_eq!(welch(&[1.0], &[1.0, 2.0]), Err(NoTest::TooFew));
        assert_eq!(welch(&[1.0, 2.0], &[]), Err(NoTest::TooFew));
        assert_eq!(welch(&[1.0, 1.0], &[2.0, 2.0]), Err(NoTest::NoSpread));
        assert!(welch(&[1.0, 1.0], &[2.0, 2.5]).is_ok(), "one of them has a spread");
        assert_eq!(one_sample(&[1.0, 1.0], 2.0), Err(NoTest::NoSpread));
        assert_eq!(Summary::of(&[2.0]), Some(Summary { n: 1, mean: 2.0, std: None }));
        assert_eq!(Summary::of(&[]), None);
    }
}
