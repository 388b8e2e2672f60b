mod pulls;

use alloc::format;
use alloc::string::String;
use alloc::vec;

use proptest::prelude::*;

use super::*;

const HOUR: u64 = 3_600_000;
const NOW: Timestamp = Timestamp(1000 * HOUR);

fn hours(number: u64) -> Duration {
    Duration::from_hours(number)
}

fn name() -> RepositoryName {
    "team/app".parse().unwrap()
}

fn digest(number: u64) -> Digest {
    format!("sha256:{number:064x}").parse().unwrap()
}

fn globs(texts: &[&str]) -> Vec<Glob> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn of(keep: Vec<KeepRule>, untagged: Option<Duration>) -> Retention {
    Retention {
        policies: vec![RetentionPolicy {
            repositories: globs(&["team/**"]),
            tags: globs(&["*"]),
            keep,
            untagged,
            pulled_within: None,
        }],
        immutable: Vec::new(),
    }
}

fn newest(number: u32) -> KeepRule {
    KeepRule {
        newest: NonZeroU32::new(number),
        ..KeepRule::default()
    }
}

fn within(number: u64) -> KeepRule {
    KeepRule {
        pushed_within: Some(hours(number)),
        ..KeepRule::default()
    }
}

/// A tag of a manifest of its own, pushed so many hours ago.
fn tag(text: &str, number: u64, age: u64) -> TagFacts {
    TagFacts {
        tag: text.parse().unwrap(),
        digest: digest(number),
        pushed: Timestamp(NOW.0 - age * HOUR),
        pulled: None,
    }
}

fn manifest(number: u64, age: u64) -> ManifestFacts {
    ManifestFacts {
        digest: digest(number),
        pushed: Timestamp(NOW.0 - age * HOUR),
        pulled: None,
        condemned_until: None,
        children: Vec::new(),
        subject: None,
    }
}

fn tags(all: &[(&str, u64)]) -> Facts {
    let tags = all.iter().enumerate();
    Facts {
        tags: tags
            .map(|(number, (text, age))| tag(text, number as u64, *age))
            .collect(),
        ..Facts::default()
    }
}

fn kept_tags(retention: &Retention, facts: &Facts) -> Vec<String> {
    let verdicts = retention.evaluate(&name(), facts, NOW).tags;
    let kept = verdicts.iter().filter(|(_, verdict)| !verdict.is_dropped());
    kept.map(|(tag, _)| tag.tag.as_str().into()).collect()
}

fn verdict_of(verdicts: &Verdicts, number: u64) -> Verdict {
    let found = verdicts.manifests.iter().find(|(of, _)| *of == digest(number));
    found.unwrap().1.clone()
}

#[test]
fn a_rule_keeps_what_meets_all_of_its_conditions_and_a_tag_stays_if_any_rule_keeps_it() {
    let facts = tags(&[("a", 1), ("b", 2), ("c", 90), ("d", 120)]);
    for (keep, expected) in [
        (vec![newest(2)], &["a", "b"][..]),
        (vec![within(100)], &["a", "b", "c"]),
        // "The 3 newest, but none older than 50 hours", which rules that are only combined by "or" cannot say.
        (
            vec![KeepRule {
                pushed_within: Some(hours(50)),
                ..newest(3)
            }],
            &["a", "b"],
        ),
        (vec![newest(1), within(100)], &["a", "b", "c"]),
        (
            vec![
                newest(1),
                KeepRule {
                    tags: globs(&["d"]),
                    ..KeepRule::default()
                },
            ],
            &["a", "d"],
        ),
        (
            vec![KeepRule {
                tags: globs(&["c", "d"]),
                ..newest(1)
            }],
            &["c"],
        ),
        (vec![within(1)], &[]),
    ] {
        assert_eq!(kept_tags(&of(keep.clone(), None), &facts), expected, "{keep:?}");
    }
}

#[test]
fn the_highest_versions_of_each_series_stay() {
    let facts = tags(&[
        ("1.0.0", 1),
        ("1.0.1", 900),
        ("v1.0.10", 900),
        ("1.1.0", 900),
        ("1.1.1-rc1", 1),
        ("1.1.1-rc2", 900),
        ("2.0.0", 900),
        ("latest", 1),
    ]);
    let per_minor = KeepRule {
        versions_per_minor: NonZeroU32::new(1),
        ..KeepRule::default()
    };
    assert_eq!(
        kept_tags(&of(vec![per_minor], None), &facts),
        ["1.1.0", "1.1.1-rc2", "2.0.0", "v1.0.10"]
    );
    let per_major = KeepRule {
        versions_per_major: NonZeroU32::new(2),
        ..KeepRule::default()
    };
    assert_eq!(
        kept_tags(&of(vec![per_major], None), &facts),
        ["1.1.0", "1.1.1-rc1", "1.1.1-rc2", "2.0.0", "v1.0.10"]
    );
}

#[test]
fn the_first_policy_for_a_repository_decides_and_what_none_names_stays() {
    let mut retention = of(vec![within(1)], None);
    retention.policies[0].tags = globs(&["ci-*"]);
    retention.policies.push(RetentionPolicy {
        repositories: globs(&["**"]),
        ..of(vec![newest(1)], None).policies.remove(0)
    });
    let facts = tags(&[("ci-1", 5), ("v1", 900), ("v2", 800)]);
    assert_eq!(kept_tags(&retention, &facts), ["v1", "v2"]);
    let other: RepositoryName = "other".parse().unwrap();
    let verdicts = retention.evaluate(&other, &facts, NOW).tags;
    let dropped = verdicts.iter().filter(|(_, verdict)| verdict.is_dropped());
    assert_eq!(dropped.count(), 2);
    retention.policies.truncate(1);
    let verdicts = retention.evaluate(&other, &facts, NOW).tags;
    assert!(
        verdicts
            .iter()
            .all(|(_, verdict)| *verdict == kept(Keeper::NoPolicy))
    );
}

#[test]
fn an_immutable_tag_stays() {
    let mut retention = of(vec![newest(1)], Some(hours(1)));
    retention.immutable.push(ImmutableTagRule {
        repositories: globs(&["**"]),
        tags: globs(&["v*"]),
    });
    let facts = tags(&[("b", 1), ("c", 2), ("v1", 900)]);
    let verdicts = retention.evaluate(&name(), &facts, NOW);
    assert_eq!(kept_tags(&retention, &facts), ["b", "v1"]);
    assert_eq!(verdicts.tags[2].1, kept(Keeper::Immutable));
}

#[test]
fn a_verdict_says_until_when() {
    let facts = tags(&[("a", 10)]);
    let verdict = |keep| of(keep, None).evaluate(&name(), &facts, NOW).tags.remove(0).1;
    let until = |rule, age: u64| Verdict::Kept {
        by: Keeper::Rule(rule),
        until: Some(Timestamp(NOW.0 + age * HOUR)),
    };
    assert_eq!(verdict(vec![within(15)]), until(0, 5));
    // The rule that keeps it longest.
    assert_eq!(verdict(vec![within(15), within(20), within(12)]), until(1, 10));
    assert_eq!(verdict(vec![within(15), newest(1)]), kept(Keeper::Rule(1)));
    // At that moment, it goes.
    assert_eq!(verdict(vec![within(10)]), Verdict::Dropped);
}

#[test]
fn tags_of_before_a_clock_was_set_back_stay_and_displace_none_of_after() {
    let mut facts = tags(&[("a", 10), ("b", 20), ("c", 30)]);
    facts.tags[1].pushed = Timestamp(NOW.0 + 5 * HOUR);
    assert_eq!(kept_tags(&of(vec![newest(1)], None), &facts), ["a", "b"]);
    assert_eq!(kept_tags(&of(vec![within(1)], None), &facts), ["b"]);
}

#[test]
fn tags_of_signatures_live_and_die_with_their_image() {
    let signature = format!("sha256-{:064x}.sig", 1);
    let schema = format!("sha256-{:064x}", 1);
    let mut facts = tags(&[("a", 1), (&signature, 900), (&schema, 900)]);
    (facts.tags[1].digest, facts.tags[2].digest) = (digest(50), digest(51));
    facts.manifests = vec![manifest(1, 900)];
    let retention = of(vec![newest(1)], Some(hours(2)));
    assert_eq!(kept_tags(&retention, &facts), ["a", &schema, &signature]);
    facts.manifests.clear();
    assert_eq!(kept_tags(&retention, &facts), ["a"]);
    // Where the policy keeps what has no tag, it keeps signatures too.
    assert_eq!(
        kept_tags(&of(vec![newest(1)], None), &facts),
        ["a", &schema, &signature]
    );
    // A signature that came before its image stays for as long as a manifest without a tag.
    facts.tags[1].pushed = Timestamp(NOW.0 - HOUR);
    assert_eq!(kept_tags(&retention, &facts), ["a", &signature]);
}

#[test]
fn a_rule_that_names_them_keeps_signatures_of_images_elsewhere_and_they_displace_no_image() {
    let signatures: Vec<String> = (1..4).map(|number| format!("sha256-{number:064x}.sig")).collect();
    let mut facts = tags(&[("a", 3), ("b", 900)]);
    for (signature, age) in signatures.iter().zip([1, 2, 900]) {
        facts.tags.extend(tags(&[(signature, age)]).tags);
    }
    let named = |newest| KeepRule {
        tags: vec!["*".parse().unwrap()],
        newest: NonZeroU32::new(newest),
        ..KeepRule::default()
    };
    let retention = of(vec![named(1)], Some(Duration::ZERO));
    assert_eq!(kept_tags(&retention, &facts), ["a", &signatures[0]]);
    let retention = of(vec![named(2)], Some(Duration::ZERO));
    assert_eq!(
        kept_tags(&retention, &facts),
        ["a", "b", &signatures[0], &signatures[1]]
    );
    // A rule for every tag is for images.
    let retention = of(vec![newest(5)], Some(Duration::ZERO));
    assert_eq!(kept_tags(&retention, &facts), ["a", "b"]);
}

#[test]
fn an_image_with_its_own_digest_as_a_tag_is_no_signature() {
    let own = format!("sha256-{:064x}", 1);
    let mut facts = tags(&[("a", 1), (&own, 900)]);
    facts.tags[1].digest = digest(1);
    facts.manifests = vec![manifest(1, 900)];
    assert_eq!(kept_tags(&of(vec![newest(1)], Some(hours(2))), &facts), ["a"]);
    assert_eq!(
        kept_tags(&of(vec![newest(2)], Some(hours(2))), &facts),
        ["a", &own]
    );
}

#[test]
fn a_manifest_without_a_tag_goes_unless_something_needs_it() {
    let mut facts = tags(&[("a", 1), ("old", 900)]);
    let index = ManifestFacts {
        children: vec![digest(11)],
        ..manifest(0, 900)
    };
    let referrer = |number, subject| ManifestFacts {
        subject: Some(digest(subject)),
        ..manifest(number, 900)
    };
    facts.manifests = vec![
        index,
        manifest(1, 900),
        manifest(11, 900),
        manifest(12, 900),
        manifest(13, 1),
        referrer(14, 0),
        referrer(15, 99),
        ManifestFacts {
            condemned_until: Some(Timestamp(NOW.0 + HOUR)),
            ..manifest(16, 1)
        },
        manifest(17, 900),
    ];
    facts.held = vec![digest(17)];
    let verdicts = of(vec![newest(1)], Some(hours(24))).evaluate(&name(), &facts, NOW);
    let until = |hours: u64| Verdict::Kept {
        by: Keeper::Age,
        until: Some(Timestamp(NOW.0 + hours * HOUR)),
    };
    assert_eq!(verdicts.manifests.len(), 8, "those of kept tags are not listed");
    for (number, expected) in [
        // Its only tag is dropped now.
        (1, Verdict::Dropped),
        (11, kept(Keeper::Parent(digest(0)))),
        (12, Verdict::Dropped),
        (13, until(23)),
        (14, kept(Keeper::Subject(digest(0)))),
        (15, Verdict::Dropped),
        (16, until(1)),
        (17, kept(Keeper::Push)),
    ] {
        assert_eq!(verdict_of(&verdicts, number), expected, "{number}");
    }
    let verdicts = of(vec![newest(1)], None).evaluate(&name(), &facts, NOW);
    assert!(
        verdicts
            .manifests
            .iter()
            .all(|(_, verdict)| !verdict.is_dropped())
    );
}

#[test]
fn a_large_repository_takes_no_time() {
    let facts = Facts {
        tags: (0..100_000)
            .map(|number| {
                tag(
                    &format!("1.{}.{}", number / 1000, number % 1000),
                    number,
                    number % 900,
                )
            })
            .collect(),
        manifests: (0..100_000).map(|number| manifest(number, 900)).collect(),
        held: Vec::new(),
        pulls_since: None,
    };
    let keep = KeepRule {
        versions_per_minor: NonZeroU32::new(3),
        ..KeepRule::default()
    };
    let verdicts = of(vec![keep, newest(10)], Some(hours(1))).evaluate(&name(), &facts, NOW);
    let kept = verdicts
        .tags
        .iter()
        .filter(|(_, verdict)| !verdict.is_dropped())
        .count();
    assert!((300..=310).contains(&kept), "{kept}");
    assert_eq!(verdicts.manifests.len(), 100_000 - kept);
}

fn rules() -> impl Strategy<Value = KeepRule> {
    let number = || {
        prop::option::weighted(
            0.4,
            (1_u32..4).prop_map(|number| NonZeroU32::new(number).unwrap()),
        )
    };
    let globs = prop_oneof![
        Just(&[][..]),
        Just(&["v*"][..]),
        Just(&["*"][..]),
        Just(&["1.*"][..])
    ]
    .prop_map(globs);
    (
        globs,
        number(),
        prop::option::weighted(0.4, 1_u64..60),
        (prop::option::weighted(0.3, 1_u64..60), number()),
        number(),
        number(),
    )
        .prop_map(
            |(tags, newest, within, (pulled, newest_pulled), versions_per_major, versions_per_minor)| {
                KeepRule {
                    tags,
                    newest,
                    pushed_within: within.map(hours),
                    pulled_within: pulled.map(hours),
                    newest_pulled,
                    versions_per_major,
                    versions_per_minor,
                }
            },
        )
}

fn some_facts() -> impl Strategy<Value = Facts> {
    let names = "(v?[01]\\.[0-2]\\.[0-3](-rc[0-2])?|[a-c]{1,2})";
    let tags = prop::collection::btree_map(names, (0_u64..12, 0_u64..50), 0..20);
    let relation = || prop::collection::vec(0_u64..12, 0..2);
    let hour = || prop::option::of((0_u64..50).prop_map(|age| Timestamp(NOW.0 - age * HOUR)));
    let manifest_facts = (0_u64..50, hour(), relation(), relation());
    let manifests = prop::collection::btree_map(0_u64..12, manifest_facts, 0..12);
    (tags, manifests, relation(), hour()).prop_map(|(tags, manifests, held, pulls_since)| Facts {
        tags: tags
            .iter()
            .map(|(text, (number, age))| tag(text, *number, *age))
            .collect(),
        manifests: manifests
            .iter()
            .map(|(number, (age, pulled, children, subject))| ManifestFacts {
                pulled: *pulled,
                // A digest cannot depend on itself, so no relation has a cycle.
                children: children
                    .iter()
                    .filter(|child| *child > number)
                    .map(|child| digest(*child))
                    .collect(),
                subject: subject
                    .iter()
                    .find(|subject| *subject > number)
                    .map(|subject| digest(*subject)),
                ..manifest(*number, *age)
            })
            .collect(),
        held: held.into_iter().map(digest).collect(),
        pulls_since,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_policy_that_keeps_all_drops_nothing(facts in some_facts(), rules in prop::collection::vec(rules(), 0..3)) {
        let mut retention = of(rules, None);
        retention.policies[0].keep.push(KeepRule::default());
        let verdicts = retention.evaluate(&name(), &facts, NOW);
        prop_assert!(verdicts.tags.iter().all(|(_, verdict)| !verdict.is_dropped()));
        prop_assert!(verdicts.manifests.iter().all(|(_, verdict)| !verdict.is_dropped()));
    }

    #[test]
    fn another_rule_never_drops_more(
        facts in some_facts(),
        before in prop::collection::vec(rules(), 0..3),
        more in rules(),
        at in 0_usize..4,
    ) {
        let dropped = |keep: &[KeepRule]| {
            let verdicts = of(keep.to_vec(), Some(hours(10))).evaluate(&name(), &facts, NOW);
            let tags = verdicts.tags.into_iter().filter(|(_, verdict)| verdict.is_dropped());
            let manifests = verdicts.manifests.into_iter().filter(|(_, verdict)| verdict.is_dropped());
            let tags: Vec<Tag> = tags.map(|(tag, _)| tag.tag).collect();
            (tags, manifests.map(|(digest, _)| digest).collect::<Vec<_>>())
        };
        let mut after = before.clone();
        after.insert(at.min(before.len()), more);
        let (less, more) = (dropped(&after), dropped(&before));
        prop_assert!(less.0.iter().all(|tag| more.0.contains(tag)));
        prop_assert!(less.1.iter().all(|digest| more.1.contains(digest)));
    }

    #[test]
    fn the_order_of_facts_does_not_matter(
        (facts, shuffled) in some_facts().prop_flat_map(|facts| {
            let tags = Just(facts.tags.clone()).prop_shuffle();
            let manifests = Just(facts.manifests.clone()).prop_shuffle();
            let pulls_since = facts.pulls_since;
            let shuffled = (tags, manifests, Just(facts.held.clone()));
            let facts_of = move |(tags, manifests, held)| Facts { tags, manifests, held, pulls_since };
            (Just(facts), shuffled.prop_map(facts_of))
        }),
        keep in prop::collection::vec(rules(), 0..3),
    ) {
        let retention = of(keep, Some(hours(10)));
        let verdicts = retention.evaluate(&name(), &facts, NOW);
        prop_assert_eq!(verdicts, retention.evaluate(&name(), &shuffled, NOW));
    }

    /// What was said to stay until a time is there until then, and what stays without an end is there later too, as long
    /// as nothing else changes.
    #[test]
    fn what_stays_until_a_time_stays_until_then(facts in some_facts(), keep in prop::collection::vec(rules(), 0..3)) {
        let retention = of(keep, Some(hours(10)));
        for (tag, verdict) in retention.evaluate(&name(), &facts, NOW).tags {
            let Verdict::Kept { until, .. } = verdict else { continue };
            let at = |now| {
                let later = retention.evaluate(&name(), &facts, now).tags;
                later.into_iter().find(|(other, _)| other.tag == tag.tag).unwrap().1
            };
            match until {
                Some(until) => {
                    prop_assert!(!at(Timestamp(until.0 - 1)).is_dropped());
                    prop_assert!(at(until).is_dropped());
                }
                None => prop_assert!(!at(Timestamp(u64::MAX)).is_dropped()),
            }
        }
    }

    /// Once everything that a verdict drops is gone, the rest stays: nothing falls like dominoes but what depended on it.
    #[test]
    fn what_a_manifest_with_a_tag_needs_is_never_dropped(
        facts in some_facts(),
        keep in prop::collection::vec(rules(), 0..3),
    ) {
        let verdicts = of(keep, Some(hours(10))).evaluate(&name(), &facts, NOW);
        let is_dropped = |digest: &Digest| {
            verdicts.manifests.iter().any(|(of, verdict)| of == digest && verdict.is_dropped())
        };
        for manifest in &facts.manifests {
            prop_assert!(manifest.children.iter().all(|child| !is_dropped(child)));
        }
        for (tag, verdict) in &verdicts.tags {
            prop_assert!(verdict.is_dropped() || !is_dropped(&tag.digest));
        }
    }
}
