//! `OpenMetrics` 1.0 text: what the Prometheus text format became, with stricter names, numbers and an end mark.

use std::fmt::Write;

use prometheus::proto::{Metric, MetricFamily, MetricType};

/// Units that a name may end in.
const UNITS: [&str; 2] = ["seconds", "bytes"];

/// All families, and the end mark.
pub(super) fn encode(families: &[MetricFamily]) -> String {
    let mut out = String::new();
    for family in families {
        encode_family(family, &mut out);
    }
    out.push_str("# EOF\n");
    out
}

/// Writing to a `String` can't fail, hence the `let _ =`.
fn encode_family(family: &MetricFamily, out: &mut String) {
    let kind = family.get_field_type();
    // A counter's family has the bare name; its sample has the suffix.
    let name = match kind {
        MetricType::COUNTER => family.name().strip_suffix("_total").unwrap_or(family.name()),
        _ => family.name(),
    };
    let _ = writeln!(out, "# TYPE {name} {}", type_name(kind));
    if let Some(unit) = UNITS.iter().find(|unit| name.strip_suffix(*unit).is_some_and(|rest| rest.ends_with('_'))) {
        let _ = writeln!(out, "# UNIT {name} {unit}");
    }
    if !family.help().is_empty() {
        let _ = writeln!(out, "# HELP {name} {}", escape(family.help()));
    }
    for metric in family.get_metric() {
        match kind {
            MetricType::COUNTER => sample(out, name, "_total", metric, None, &number(metric.get_counter().get_value())),
            MetricType::HISTOGRAM => encode_histogram(out, name, metric),
            MetricType::SUMMARY => {
                let summary = metric.get_summary();
                for q in summary.get_quantile() {
                    sample(out, name, "", metric, Some(("quantile", &number(q.quantile()))), &number(q.value()));
                }
                sample(out, name, "_sum", metric, None, &number(summary.sample_sum()));
                sample(out, name, "_count", metric, None, &summary.sample_count().to_string());
            }
            MetricType::GAUGE => sample(out, name, "", metric, None, &number(metric.get_gauge().get_value())),
            // No collector of this crate makes one, and its accessor depends on how `prometheus` was built.
            MetricType::UNTYPED => {}
        }
    }
}

fn encode_histogram(out: &mut String, name: &str, metric: &Metric) {
    let histogram = metric.get_histogram();
    let finite = histogram.get_bucket().iter().filter(|b| b.upper_bound().is_finite());
    for bucket in finite {
        let count = bucket.cumulative_count().to_string();
        sample(out, name, "_bucket", metric, Some(("le", &number(bucket.upper_bound()))), &count);
    }
    let count = histogram.get_sample_count().to_string();
    sample(out, name, "_bucket", metric, Some(("le", "+Inf")), &count);
    sample(out, name, "_sum", metric, None, &number(histogram.get_sample_sum()));
    sample(out, name, "_count", metric, None, &count);
}

fn sample(out: &mut String, name: &str, suffix: &str, metric: &Metric, extra: Option<(&str, &str)>, value: &str) {
    out.push_str(name);
    out.push_str(suffix);
    let labels = metric.get_label().iter().map(|pair| (pair.name(), pair.value())).chain(extra);
    let mut separator = '{';
    for (label, value) in labels {
        let _ = write!(out, "{separator}{label}=\"{}\"", escape(value));
        separator = ',';
    }
    if separator == ',' {
        out.push('}');
    }
    let _ = writeln!(out, " {value}");
}

fn type_name(kind: MetricType) -> &'static str {
    match kind {
        MetricType::COUNTER => "counter",
        MetricType::GAUGE => "gauge",
        MetricType::HISTOGRAM => "histogram",
        MetricType::SUMMARY => "summary",
        MetricType::UNTYPED => "unknown",
    }
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// A float as `OpenMetrics` writes it canonically, so that one bucket has one name everywhere: always with a point or an exponent.
fn number(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let size = value.abs();
    if size == 0.0 || (1e-4..1e21).contains(&size) {
        let plain = value.to_string();
        return if plain.contains('.') { plain } else { plain + ".0" };
    }
    let scientific = format!("{value:e}");
    match scientific.split_once('e') {
        Some((mantissa, exponent)) => {
            let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
            format!("{mantissa}e{sign}{digits:0>2}")
        }
        None => scientific,
    }
}

#[cfg(test)]
mod tests {
    use prometheus::{Histogram, HistogramOpts, IntCounterVec, IntGauge, Opts, Registry};

    use super::*;

    #[test]
    fn families_lose_their_total_and_end_with_the_mark() {
        let registry = Registry::new();
        let counter = IntCounterVec::new(Opts::new("a_seen_total", "Seen \"so\" far."), &["path"]).unwrap();
        counter.with_label_values(&["C:\\x\n\"y\""]).inc_by(3);
        let gauge = IntGauge::new("b_bytes", "Size.").unwrap();
        gauge.set(-2);
        let histogram =
            Histogram::with_opts(HistogramOpts::new("c_seconds", "Time.").buckets(vec![0.000_025, 0.5, 1.0])).unwrap();
        histogram.observe(0.25);
        histogram.observe(3.0);
        registry.register(Box::new(counter)).unwrap();
        registry.register(Box::new(gauge)).unwrap();
        registry.register(Box::new(histogram)).unwrap();

        assert_eq!(
            encode(&registry.gather()),
            r#"# TYPE a_seen counter
# HELP a_seen Seen \"so\" far.
a_seen_total{path="C:\\x\n\"y\""} 3.0
# TYPE b_bytes gauge
# UNIT b_bytes bytes
# HELP b_bytes Size.
b_bytes -2.0
# TYPE c_seconds histogram
# UNIT c_seconds seconds
# HELP c_seconds Time.
c_seconds_bucket{le="2.5e-05"} 0
c_seconds_bucket{le="0.5"} 1
c_seconds_bucket{le="1.0"} 1
c_seconds_bucket{le="+Inf"} 2
c_seconds_sum 3.25
c_seconds_count 2
# EOF
"#
        );
    }

    #[test]
    fn numbers_are_canonical() {
        for (value, text) in [
            (0.0, "0.0"),
            (0.000_1, "0.0001"),
            (0.000_05, "5e-05"),
            (1_767_225_600.0, "1767225600.0"),
            (86_400.0, "86400.0"),
            (1e22, "1e+22"),
            (f64::INFINITY, "+Inf"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(number(value), text);
        }
    }
}
