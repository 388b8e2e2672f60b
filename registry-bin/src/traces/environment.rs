//! The configuration of traces, from the environment variables `OTEL_*`.
//!
//! They are those of the `OpenTelemetry` specification, which the distribution registry reads too. Variables that the
//! SDK reads itself are only checked here, because the SDK ignores wrong values.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;
use reqwest::header::{HeaderName, HeaderValue};

use crate::config::values::shown;
use crate::failure::Failure;

const EXPORTER: &str = "OTEL_TRACES_EXPORTER";
const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const TRACES_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";

/// The samplers; those with a ratio take it from [`SAMPLER_ARGUMENT`].
const SAMPLERS: [&str; 6] = [
    "always_on",
    "always_off",
    "traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
];
const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
const SAMPLER_ARGUMENT: &str = "OTEL_TRACES_SAMPLER_ARG";

/// The counts, and times in milliseconds, that the SDK reads.
const NUMBERS: [&str; 9] = [
    "OTEL_EXPORTER_OTLP_TIMEOUT",
    "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT",
    "OTEL_BSP_SCHEDULE_DELAY",
    "OTEL_BSP_EXPORT_TIMEOUT",
    "OTEL_BSP_MAX_QUEUE_SIZE",
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
    "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_SPAN_EVENT_COUNT_LIMIT",
    "OTEL_SPAN_LINK_COUNT_LIMIT",
];

/// The other variables that have an effect.
const OTHERS: [&str; 17] = [
    "OTEL_SDK_DISABLED",
    "OTEL_SERVICE_NAME",
    "OTEL_RESOURCE_ATTRIBUTES",
    "OTEL_PROPAGATORS",
    EXPORTER,
    ENDPOINT,
    TRACES_ENDPOINT,
    SAMPLER,
    SAMPLER_ARGUMENT,
    "OTEL_EXPORTER_OTLP_PROTOCOL",
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
    "OTEL_EXPORTER_OTLP_HEADERS",
    "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
    "OTEL_EXPORTER_OTLP_COMPRESSION",
    "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION",
    "OTEL_EXPORTER_OTLP_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE",
];

/// How traces are exported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TraceOptions {
    /// The collector's URL for display, without credentials.
    pub(super) endpoint: String,
    /// How long a request to the collector may take.
    pub(super) timeout: Duration,
    /// A file of certificates to trust the collector by, in addition to those of the system.
    pub(super) certificates: Option<PathBuf>,
    /// Whether a request joins the trace that its `traceparent` names.
    pub(super) joins_traces: bool,
    /// Variables and values that have no effect here.
    pub(super) without_effect: Vec<String>,
}

impl TraceOptions {
    /// Reads the variables. Returns `None` if none of them asks for traces.
    ///
    /// # Errors
    /// If a variable has an invalid value, or asks for something unsupported. Values that may be secret are not shown.
    pub(super) fn read(
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Option<Self>, Failure> {
        // According to the specification, an empty value counts as unset.
        let variables: BTreeMap<String, String> = variables
            .into_iter()
            .filter(|(name, value)| name.starts_with("OTEL_") && !value.trim().is_empty())
            .collect();
        Variables(variables).options()
    }
}

struct Variables(BTreeMap<String, String>);

impl Variables {
    fn options(&self) -> Result<Option<TraceOptions>, Failure> {
        if self.is_disabled()? || !self.has_exporter()? {
            return Ok(None);
        }
        self.check_protocol()?;
        self.check_sampler()?;
        self.check_headers()?;
        for name in NUMBERS {
            self.number(name)?;
        }
        let mut without_effect = self.unknown();
        let joins_traces = self.propagators(&mut without_effect);
        self.compression(&mut without_effect);
        Ok(Some(TraceOptions {
            endpoint: self.endpoint()?,
            timeout: Duration::from_millis(self.of_traces("TIMEOUT", Self::number)?.unwrap_or(10_000)),
            certificates: self.of_traces("CERTIFICATE", |variables, name| {
                Ok(variables.get(name).map(PathBuf::from))
            })?,
            joins_traces,
            without_effect,
        }))
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|value| value.trim())
    }

    /// Returns the value of an exporter variable: the one for traces, or otherwise the one for all signals.
    fn of_traces<T>(
        &self,
        name: &str,
        read: impl Fn(&Self, &str) -> Result<Option<T>, Failure>,
    ) -> Result<Option<T>, Failure> {
        match read(self, &format!("OTEL_EXPORTER_OTLP_TRACES_{name}"))? {
            Some(value) => Ok(Some(value)),
            None => read(self, &format!("OTEL_EXPORTER_OTLP_{name}")),
        }
    }

    fn is_disabled(&self) -> Result<bool, Failure> {
        match self.get("OTEL_SDK_DISABLED") {
            Some(value) if value.eq_ignore_ascii_case("true") => Ok(true),
            Some(value) if !value.eq_ignore_ascii_case("false") => {
                Err(wrong("OTEL_SDK_DISABLED", value, "true or false"))
            }
            _ => Ok(false),
        }
    }

    fn has_exporter(&self) -> Result<bool, Failure> {
        match self.get(EXPORTER) {
            Some("none") => Ok(false),
            Some("otlp") => Ok(true),
            Some(value) => Err(wrong(
                EXPORTER,
                value,
                "otlp or none; traces are sent by no other protocol",
            )),
            None => Ok(self.get(ENDPOINT).is_some() || self.get(TRACES_ENDPOINT).is_some()),
        }
    }

    fn check_protocol(&self) -> Result<(), Failure> {
        let check = |variables: &Self, name: &str| match variables.get(name) {
            Some("http/protobuf") | None => Ok(variables.get(name).map(drop)),
            Some(value) => Err(wrong(
                name,
                value,
                "http/protobuf; traces are sent by no other protocol, and a collector takes it at port 4318 where it takes grpc at 4317",
            )),
        };
        self.of_traces("PROTOCOL", check).map(drop)
    }

    fn check_sampler(&self) -> Result<(), Failure> {
        let Some(sampler) = self.get(SAMPLER) else {
            return Ok(());
        };
        if !SAMPLERS.contains(&sampler) {
            return Err(wrong(SAMPLER, sampler, &SAMPLERS.join(", ")));
        }
        match self.get(SAMPLER_ARGUMENT) {
            Some(value) if sampler.ends_with("traceidratio") => match value.parse::<f64>() {
                Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(()),
                _ => Err(wrong(SAMPLER_ARGUMENT, value, "a number from 0 to 1")),
            },
            _ => Ok(()),
        }
    }

    fn check_headers(&self) -> Result<(), Failure> {
        let check = |variables: &Self, name: &str| {
            let Some(value) = variables.get(name) else {
                return Ok(None);
            };
            for (index, field) in value.split(',').enumerate() {
                let is_field = field.split_once('=').is_some_and(|(name, value)| {
                    HeaderName::try_from(name.trim()).is_ok() && HeaderValue::try_from(value.trim()).is_ok()
                });
                if !is_field {
                    return Err(Failure::new(format!(
                        "{name}: its field {number} is not of the form name=value; several are separated by commas, and a comma in a value is written as %2C",
                        number = index + 1,
                    )));
                }
            }
            Ok(Some(()))
        };
        self.of_traces("HEADERS", check).map(drop)
    }

    fn number(&self, name: &str) -> Result<Option<u64>, Failure> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        match value.parse() {
            Ok(0) | Err(_) => Err(wrong(
                name,
                value,
                "a whole number above 0, without a unit; times are in milliseconds",
            )),
            Ok(number) => Ok(Some(number)),
        }
    }

    /// Returns the collector's URL for display.
    fn endpoint(&self) -> Result<String, Failure> {
        let name = [TRACES_ENDPOINT, ENDPOINT]
            .into_iter()
            .find(|name| self.get(name).is_some());
        let Some(name) = name else {
            return Ok("http://localhost:4318".to_owned());
        };
        // The value may contain a password, so it is not shown.
        let url = self.get(name).and_then(|value| Url::parse(value).ok());
        let Some(mut url) = url.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
        else {
            return Err(Failure::new(format!(
                "{name} is not the URL of a collector; write for example http://localhost:4318"
            )));
        };
        let is_plain = url.set_username("").is_ok() && url.set_password(None).is_ok();
        url.set_query(None);
        url.set_fragment(None);
        Ok(if is_plain {
            url.to_string()
        } else {
            name.to_owned()
        })
    }

    fn propagators(&self, without_effect: &mut Vec<String>) -> bool {
        let mut joins_traces = false;
        for propagator in self.get("OTEL_PROPAGATORS").unwrap_or("tracecontext").split(',') {
            match propagator.trim() {
                "tracecontext" => joins_traces = true,
                // Baggage is passed on to other services, and nothing here calls any.
                "baggage" | "none" | "" => {}
                other => without_effect.push(setting("OTEL_PROPAGATORS", other)),
            }
        }
        joins_traces
    }

    fn compression(&self, without_effect: &mut Vec<String>) {
        for name in [
            "OTEL_EXPORTER_OTLP_COMPRESSION",
            "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION",
        ] {
            if let Some(value) = self.get(name).filter(|value| *value != "none") {
                without_effect.push(setting(name, value));
            }
        }
    }

    fn unknown(&self) -> Vec<String> {
        let is_unknown =
            |name: &&String| !NUMBERS.contains(&name.as_str()) && !OTHERS.contains(&name.as_str());
        self.0.keys().filter(is_unknown).cloned().collect()
    }
}

fn wrong(name: &str, value: &str, accepted: &str) -> Failure {
    Failure::new(format!(
        "the variable {name} is {}, but takes {accepted}",
        shown(value)
    ))
}

/// Names a variable, with its value if that is plainly no secret.
fn setting(name: &str, value: &str) -> String {
    if shown(value).contains(value) {
        format!("{name}={value}")
    } else {
        name.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Option<TraceOptions>, String> {
        let owned = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        TraceOptions::read(owned).map_err(|failure| failure.to_string())
    }

    #[test]
    fn a_secret_in_the_place_of_a_value_is_not_shown() {
        for secret in [
            "AKIAQ7CANARYQ7xYzAbC",
            "https://u:CANARY1@h/x",
            "-----BEGIN PRIVATE KEY----- CANARY1",
        ] {
            for name in [
                SAMPLER,
                "OTEL_EXPORTER_OTLP_PROTOCOL",
                "OTEL_BSP_MAX_QUEUE_SIZE",
                "OTEL_SDK_DISABLED",
                EXPORTER,
            ] {
                let variables = [(EXPORTER, "otlp"), (name, secret)];
                if let Err(message) = read(&variables) {
                    assert!(!message.contains("CANARY"), "{message}");
                }
            }
            assert!(read(&[(EXPORTER, secret)]).unwrap_err().contains(EXPORTER));
        }
    }

    #[test]
    fn nothing_is_traced_unless_somebody_asks() {
        for variables in [
            &[][..],
            &[
                ("OTEL_SERVICE_NAME", "registry"),
                ("OTEL_TRACES_SAMPLER", "nonsense"),
            ],
            &[(ENDPOINT, ""), (TRACES_ENDPOINT, " ")],
            &[(ENDPOINT, "http://a"), (EXPORTER, "none")],
            &[(ENDPOINT, "http://a"), ("OTEL_SDK_DISABLED", "True")],
            &[("PATH", "/bin")],
        ] {
            assert_eq!(read(variables), Ok(None), "{variables:?}");
        }
        for (variables, endpoint) in [
            (&[(ENDPOINT, "http://a:1")][..], "http://a:1/"),
            (
                &[(TRACES_ENDPOINT, "https://a/b"), (ENDPOINT, "http://c")],
                "https://a/b",
            ),
            (&[(EXPORTER, "otlp")], "http://localhost:4318"),
            (
                &[
                    (ENDPOINT, "http://user:canary@a/?canary#canary"),
                    ("OTEL_SDK_DISABLED", "false"),
                ],
                "http://a/",
            ),
        ] {
            assert_eq!(
                read(variables).unwrap().unwrap().endpoint,
                endpoint,
                "{variables:?}"
            );
        }
    }

    #[test]
    fn what_is_wrong_is_named_without_secrets() {
        for (variable, value, told) in [
            (ENDPOINT, "canary", "not the URL of a collector"),
            (ENDPOINT, "unix://canary", "not the URL of a collector"),
            (TRACES_ENDPOINT, "http://", "not the URL of a collector"),
            (EXPORTER, "zipkin", "otlp or none"),
            ("OTEL_SDK_DISABLED", "yes", "true or false"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "http/protobuf"),
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json", "http/protobuf"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a=b,canary", "field 2"),
            ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "a b=canary", "field 1"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s", "milliseconds"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "0", "above 0"),
            ("OTEL_BSP_SCHEDULE_DELAY", "-1", "above 0"),
            (SAMPLER, "xray", "parentbased_traceidratio"),
        ] {
            let message = read(&[(EXPORTER, "otlp"), (variable, value)]);
            // The second of two values for the exporter overrides the first.
            let message = message.expect_err(variable);
            assert!(message.contains(variable) && message.contains(told), "{message}");
            assert!(!message.contains("canary"), "{message}");
        }
        for ratio in ["1.5", "-0.1", "NaN", "half"] {
            let variables = [
                (EXPORTER, "otlp"),
                (SAMPLER, "parentbased_traceidratio"),
                (SAMPLER_ARGUMENT, ratio),
            ];
            assert!(read(&variables).unwrap_err().contains("from 0 to 1"));
        }
    }

    #[test]
    fn what_has_no_effect_is_told_and_the_rest_acts() {
        let options = read(&[
            (EXPORTER, "otlp"),
            (SAMPLER, "traceidratio"),
            (SAMPLER_ARGUMENT, "0.25"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "1"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "250"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/a"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
            (
                "OTEL_PROPAGATORS",
                "b3, baggage,tracecontext,AKIAQ7CANARYQ7xYzAbC",
            ),
            ("OTEL_METRICS_EXPORTER", "canary"),
        ]);
        let options = options.unwrap().unwrap();
        assert_eq!(options.timeout, Duration::from_millis(250));
        assert_eq!(options.certificates, Some(PathBuf::from("/a")));
        assert!(options.joins_traces);
        assert_eq!(
            options.without_effect,
            [
                "OTEL_METRICS_EXPORTER",
                "OTEL_PROPAGATORS=b3",
                "OTEL_PROPAGATORS",
                "OTEL_EXPORTER_OTLP_COMPRESSION=gzip"
            ]
        );
        let alone = read(&[(EXPORTER, "otlp"), ("OTEL_PROPAGATORS", "none")]);
        assert!(!alone.unwrap().unwrap().joins_traces);
    }
}
