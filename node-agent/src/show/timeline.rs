//! Changes as timelines: events that came of each other, in the order of time, with
//! the time between the steps. Pure.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt::Write as _,
};

use crate::events::EventView;

/// Writes the last changes that any of the chosen events is part of: what each came
/// of, and what came of it.
pub fn write(events: &[EventView], chosen: impl Fn(&EventView) -> bool, last: usize) -> String {
    let seeds = events.iter().filter(|event| chosen(event));
    let chains = chains(events, &linked(events, seeds.map(|event| event.id)));
    let mut out = String::new();
    let hidden = chains.len().saturating_sub(last);
    let mut day = "";
    for chain in &chains[hidden..] {
        out.push('\n');
        if let Some(first) = chain.first()
            && first.day() != day
        {
            day = first.day();
            // Writing into a string cannot fail.
            let _ = writeln!(out, "{day} (UTC)");
        }
        chain_lines(chain, &mut out);
    }
    if hidden > 0 {
        let changes = if hidden == 1 { "change" } else { "changes" };
        let _ = writeln!(out, "\n{hidden} older {changes}: see --last");
    }
    out
}

/// What an event is about and what it says.
pub fn words(event: &EventView) -> String {
    let (step, about) = (event.step, event.about.to_string());
    format!("{step:<8} {about:<24} {}", event.text)
}

fn chain_lines(chain: &[&EventView], out: &mut String) {
    let mut before = None;
    for event in chain {
        let at = event.monotonic_us;
        let between = before.map(|before| after(at.saturating_sub(before)));
        before = Some(at);
        let (clock, between) = (event.clock(), between.unwrap_or_default());
        let _ = writeln!(out, "{clock} {between:>12}  {}", words(event));
    }
}

/// `+0.042 ms`, and in seconds when it is long.
fn after(micros: u64) -> String {
    match micros {
        0..10_000_000 => format!("+{}.{:03} ms", micros / 1000, micros % 1000),
        _ => format!("+{} s", micros / 1_000_000),
    }
}

/// The numbers of the events and of all that they came of, and that came of them.
fn linked(events: &[EventView], seeds: impl Iterator<Item = u64>) -> BTreeSet<u64> {
    let mut effects = HashMap::<u64, Vec<u64>>::new();
    let mut causes = HashMap::<u64, &[u64]>::new();
    for event in events {
        causes.insert(event.id, &event.causes);
        for cause in &event.causes {
            effects.entry(*cause).or_default().push(event.id);
        }
    }
    let seeds: Vec<_> = seeds.collect();
    let of = |id: &u64| causes.get(id).copied().unwrap_or(&[]).to_vec();
    let mut found = reached(&seeds, of);
    let by = |id: &u64| effects.get(id).cloned().unwrap_or_default();
    found.extend(reached(&seeds, by));
    found
}

/// All that can be reached from the seeds, which are among them.
fn reached(seeds: &[u64], next: impl Fn(&u64) -> Vec<u64>) -> BTreeSet<u64> {
    let mut found = BTreeSet::new();
    let mut open = seeds.to_vec();
    while let Some(id) = open.pop() {
        if found.insert(id) {
            open.extend(next(&id));
        }
    }
    found
}

/// The chosen events by what they are linked with, in the order of time.
fn chains<'a>(events: &'a [EventView], chosen: &BTreeSet<u64>) -> Vec<Vec<&'a EventView>> {
    // Events come in the order of time, but a cause may have been recorded late.
    let mut chain_of = HashMap::<u64, usize>::new();
    let mut chains = BTreeMap::<usize, Vec<&EventView>>::new();
    let events = events.iter().filter(|event| chosen.contains(&event.id));
    for (number, event) in events.enumerate() {
        let mut with = vec![event];
        let linked = event.causes.iter().filter_map(|id| chain_of.get(id));
        let linked: BTreeSet<usize> = linked.copied().collect();
        for other in linked {
            with.extend(chains.remove(&other).unwrap_or_default());
        }
        with.sort_by_key(|event| (event.monotonic_us, event.id));
        for event in &with {
            chain_of.insert(event.id, number);
        }
        chains.insert(number, with);
    }
    let mut chains: Vec<_> = chains.into_values().collect();
    chains.sort_by_key(|chain| chain.first().map(|event| (event.monotonic_us, event.id)));
    chains
}
