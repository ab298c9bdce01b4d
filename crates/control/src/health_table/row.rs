//! The health of the backends of one service.

use std::{
    collections::HashMap,
    mem::{Discriminant, discriminant, replace},
    net::IpAddr,
    sync::Arc,
    time::Instant,
};

use super::Change;
use crate::{
    check::CheckResult,
    doubt::Evidence,
    health::{Health, Initial, Path, State, Transition},
    model::{Backend, CheckKind, Service, Tracked},
    slow_start::Share,
    standing::Standing,
};

/// A service and its backends; all lists are in the service's order.
#[derive(Clone, Debug)]
pub(super) struct Row {
    service: Arc<Service>,
    places: HashMap<IpAddr, usize>,
    health: Vec<Health>,
    /// The same in a word each, since decisions read nothing else.
    standing: Vec<Standing>,
    /// What was last known of the way to each, in a word.
    evidence: Vec<Discriminant<Evidence>>,
    /// Less than the whole for whom starts slowly.
    shares: Vec<Share>,
    /// Of how many nothing is known.
    unknown: usize,
}

impl Row {
    pub(super) fn new(
        service: &Arc<Service>,
        old: Option<&Self>,
        initial: &dyn Fn(&Service, &Backend) -> Initial,
        now: Instant,
    ) -> Self {
        let unchecked = service.check.kind == CheckKind::None;
        let health = |backend: &Backend| {
            let old = old.and_then(|row| Some(&row.health[row.position(backend.address)?]));
            match old {
                // Who is not asked is up unless BFD says otherwise.
                Some(old) if !unchecked || (service.bfd && old.path().is_down()) => old.clone(),
                _ if unchecked && backend.track.is_none() => Health::new(Initial::Up, now),
                _ => Health::new(initial(service, backend), now),
            }
        };
        let mut health: Vec<_> = service.backends.iter().map(health).collect();
        if !service.bfd {
            for health in &mut health {
                health.follow(Path::Unknown, !unchecked, now);
            }
        }
        let addresses = service.backends.iter().map(|backend| backend.address);
        Self {
            service: Arc::clone(service),
            places: addresses.zip(0..).collect(),
            standing: health.iter().map(Health::standing).collect(),
            evidence: health.iter().map(word).collect(),
            shares: vec![Share::WHOLE; health.len()],
            unknown: health.iter().filter(|h| is_unknown(h)).count(),
            health,
        }
    }

    pub(super) fn service(&self) -> &Service {
        &self.service
    }

    pub(super) fn health(&self) -> &[Health] {
        &self.health
    }

    pub(super) fn standing(&self) -> &[Standing] {
        &self.standing
    }

    pub(super) fn shares(&self) -> &[Share] {
        &self.shares
    }

    /// What is known of the way to each address that can be known of.
    pub(super) fn evidence(&self) -> impl Iterator<Item = (IpAddr, Evidence)> + Clone {
        let tells_silence = self.service.check.kind.tells_silence();
        let all = self.service.backends.iter().zip(&self.health);
        let own = all.filter(|(backend, _)| backend.track.is_none());
        own.filter_map(move |(backend, health)| {
            let asked = self.service.check_address(backend).ip();
            let by_bfd = match health.path() {
                Path::Unknown => false,
                Path::Up => health.is_available(),
                Path::Down(_) => true,
            };
            let address = if tells_silence {
                asked
            } else {
                backend.address
            };
            (tells_silence || by_bfd).then(|| (address, health.evidence()))
        })
    }

    pub(super) fn unknown(&self) -> usize {
        self.unknown
    }

    pub(super) fn position(&self, address: IpAddr) -> Option<usize> {
        self.places.get(&address).copied()
    }

    pub(super) fn is_checked(&self, place: usize) -> bool {
        self.service.check.kind != CheckKind::None && !self.follows(place)
    }

    pub(super) fn has_bfd(&self, place: usize) -> bool {
        self.service.bfd && !self.follows(place)
    }

    fn follows(&self, place: usize) -> bool {
        self.service.backends[place].track.is_some()
    }

    pub(super) fn observe(
        &mut self,
        place: usize,
        result: CheckResult,
        now: Instant,
    ) -> Option<Transition> {
        let was_unknown = is_unknown(&self.health[place]);
        let transition = self.health[place].observe(result, &self.service.check.timing, now);
        self.count_known(place, was_unknown);
        transition
    }

    pub(super) fn hear(&mut self, place: usize, path: Path, now: Instant) -> Option<Transition> {
        let was_unknown = is_unknown(&self.health[place]);
        let is_checked = self.is_checked(place);
        let transition = self.health[place].follow(path, is_checked, now);
        self.count_known(place, was_unknown);
        transition
    }

    /// Gives a backend the health of another, which has changed for this reason,
    /// if it has.
    pub(super) fn copy(
        &mut self,
        place: usize,
        leader: &Health,
        reason: Option<&str>,
    ) -> Option<Change> {
        let was_unknown = is_unknown(&self.health[place]);
        let from = self.health[place].state();
        self.health[place].copy(leader);
        self.count_known(place, was_unknown);
        let transition = (from != leader.state()).then(|| Transition {
            from,
            to: leader.state(),
            reason: format!("it follows another, {}", reason.unwrap_or("as it is")),
        });
        self.settle(place, transition)
    }

    fn count_known(&mut self, place: usize, was_unknown: bool) {
        let unknown = usize::from(is_unknown(&self.health[place]));
        self.unknown = self.unknown - usize::from(was_unknown) + unknown;
    }

    /// Brings what follows from a backend's health up to date. What has changed,
    /// if anything.
    pub(super) fn settle(
        &mut self,
        place: usize,
        transition: Option<Transition>,
    ) -> Option<Change> {
        let standing = self.health[place].standing();
        let before = replace(&mut self.standing[place], standing);
        let standing = (before != standing).then_some(standing);
        let known = word(&self.health[place]);
        let evidence = replace(&mut self.evidence[place], known) != known;
        let backend = &self.service.backends[place];
        (transition.is_some() || standing.is_some() || evidence).then(|| Change {
            backend: Tracked::of(&self.service, backend),
            name: Arc::clone(&backend.name),
            transition,
            standing,
            evidence,
        })
    }

    /// Works out the shares at `now`. Whether one is another now.
    pub(super) fn advance(&mut self, now: Instant) -> bool {
        let over = self.service.slow_start;
        if over.is_zero() {
            return false;
        }
        let shares = self.health.iter().map(|health| match health.returned() {
            Some(returned) => Share::at(now, returned, over),
            None => Share::WHOLE,
        });
        let shares: Vec<_> = shares.collect();
        let backends = self.service.backends.iter();
        let mut serving = backends.zip(&self.health).zip(&shares);
        let somebody = serving.any(|((backend, health), share)| {
            backend.weight > 0 && health.is_available() && *share == Share::WHOLE
        });
        if !somebody {
            // Nobody could take what they do not: they have the whole for good.
            self.health.iter_mut().for_each(Health::end_slow_start);
            return self.replace(vec![Share::WHOLE; shares.len()]);
        }
        self.replace(shares)
    }

    fn replace(&mut self, shares: Vec<Share>) -> bool {
        let changed = self.shares != shares;
        self.shares = shares;
        changed
    }

    /// When a share grows next.
    pub(super) fn grows(&self) -> Option<Instant> {
        let over = self.service.slow_start;
        let shares = self.health.iter().zip(&self.shares);
        let slow = shares.filter(|(_, share)| **share < Share::WHOLE);
        slow.filter_map(|(health, share)| share.grows(health.returned()?, over))
            .min()
    }
}

fn word(health: &Health) -> Discriminant<Evidence> {
    discriminant(&health.evidence())
}

fn is_unknown(health: &Health) -> bool {
    health.state() == State::Unknown
}
