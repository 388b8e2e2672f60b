use super::*;

/// Facts in which pulls are recorded since so many hours ago.
fn recorded(mut facts: Facts, since: u64) -> Facts {
    facts.pulls_since = Some(Timestamp(NOW.0 - since * HOUR));
    facts
}

fn pulled(number: u64, age: u64, pulled: u64) -> ManifestFacts {
    ManifestFacts {
        pulled: Some(Timestamp(NOW.0 - pulled * HOUR)),
        ..manifest(number, age)
    }
}

fn pulled_within(number: u64) -> KeepRule {
    KeepRule {
        pulled_within: Some(hours(number)),
        ..KeepRule::default()
    }
}

#[test]
fn what_was_pulled_or_pushed_lately_stays() {
    let mut facts = tags(&[("a", 900), ("b", 900), ("c", 900), ("d", 5)]);
    facts.manifests = vec![
        pulled(0, 900, 9),
        pulled(1, 900, 12),
        manifest(2, 900),
        manifest(3, 5),
    ];
    let retention = of(vec![pulled_within(10)], None);
    let long = recorded(facts.clone(), 800);
    assert_eq!(kept_tags(&retention, &long), ["a", "d"]);
    let verdicts = retention.evaluate(&name(), &long, NOW);
    assert_eq!(verdicts.tags[0].0.pulled, facts.manifests[0].pulled);
    // A pull that came within an hour of the recorded one is not recorded.
    let until = |since: u64, after: u64| Verdict::Kept {
        by: Keeper::Rule(0),
        until: Some(Timestamp(NOW.0 + (after - since) * HOUR)),
    };
    assert_eq!(verdicts.tags[0].1, until(9, 11));
    assert_eq!(verdicts.tags[3].1, until(5, 11));
    // What was never pulled counts as pulled when recording began, and if nothing is recorded nobody knows.
    assert_eq!(
        kept_tags(&retention, &recorded(facts.clone(), 10)),
        ["a", "b", "c", "d"]
    );
    assert_eq!(kept_tags(&retention, &facts), ["a", "b", "c", "d"]);
    let both = KeepRule {
        pushed_within: Some(hours(100)),
        ..pulled_within(10)
    };
    assert_eq!(kept_tags(&of(vec![both], None), &long), ["d"]);
}

#[test]
fn those_that_were_pulled_last_stay_and_what_may_be_among_them() {
    let mut facts = tags(&[("a", 900), ("b", 900), ("c", 900), ("d", 900), ("e", 900)]);
    facts.manifests = vec![
        pulled(0, 900, 1),
        pulled(1, 900, 5),
        pulled(2, 900, 6),
        pulled(3, 900, 7),
    ];
    let newest = |number| {
        let rule = KeepRule {
            newest_pulled: NonZeroU32::new(number),
            ..KeepRule::default()
        };
        of(vec![rule], None)
    };
    let long = recorded(facts.clone(), 800);
    assert_eq!(kept_tags(&newest(1), &long), ["a"]);
    // Perhaps `c` was pulled again up to an hour later.
    assert_eq!(kept_tags(&newest(2), &long), ["a", "b", "c"]);
    assert_eq!(kept_tags(&newest(4), &long), ["a", "b", "c", "d"]);
    assert_eq!(kept_tags(&newest(9), &long).len(), 5);
    // Nothing is known about `e` before.
    assert_eq!(kept_tags(&newest(3), &recorded(facts.clone(), 7)).len(), 5);
    assert_eq!(kept_tags(&newest(1), &facts).len(), 5);
    // A clock that was set back.
    facts.manifests[4 - 1].pulled = Some(Timestamp(NOW.0 + 50 * HOUR));
    assert_eq!(kept_tags(&newest(1), &recorded(facts, 800)), ["a", "d"]);
}

#[test]
fn an_index_was_pulled_with_what_it_names() {
    let mut facts = recorded(tags(&[("index", 900), ("other", 900)]), 800);
    let nested = ManifestFacts {
        children: vec![digest(11)],
        ..manifest(10, 900)
    };
    let index = ManifestFacts {
        children: vec![digest(10)],
        ..manifest(0, 900)
    };
    facts.manifests = vec![index, manifest(1, 900), nested, pulled(11, 900, 3)];
    assert_eq!(kept_tags(&of(vec![pulled_within(10)], None), &facts), ["index"]);
    let verdicts = of(vec![pulled_within(10)], None).evaluate(&name(), &facts, NOW);
    assert_eq!(verdicts.tags[0].0.pulled, Some(Timestamp(NOW.0 - 3 * HOUR)));
}

#[test]
fn a_policy_protects_what_was_pulled_lately_also_without_a_tag() {
    let mut facts = tags(&[("a", 900), ("b", 900), ("c", 1)]);
    facts.manifests = vec![
        pulled(0, 900, 9),
        pulled(1, 900, 50),
        manifest(2, 1),
        pulled(7, 900, 9),
        manifest(8, 900),
    ];
    let mut retention = of(vec![newest(1)], Some(hours(24)));
    retention.policies[0].pulled_within = Some(hours(10));
    assert!(retention.uses_pulls_of(&name()) && !of(vec![newest(1)], None).uses_pulls());
    let long = recorded(facts.clone(), 800);
    assert_eq!(kept_tags(&retention, &long), ["a", "c"]);
    let verdicts = retention.evaluate(&name(), &long, NOW);
    let protected = Verdict::Kept {
        by: Keeper::Pulled,
        until: Some(Timestamp(NOW.0 + 2 * HOUR)),
    };
    assert_eq!(
        (&verdicts.tags[0].1, &verdicts.tags[2].1),
        (&protected, &kept(Keeper::Rule(0)))
    );
    assert_eq!(verdict_of(&verdicts, 7), protected);
    assert!(verdict_of(&verdicts, 8).is_dropped() && verdict_of(&verdicts, 1).is_dropped());
    let unknown = retention.evaluate(&name(), &facts, NOW);
    assert_eq!(verdict_of(&unknown, 8), kept(Keeper::Pulled));
    assert!(unknown.tags.iter().all(|(_, verdict)| !verdict.is_dropped()));
}
