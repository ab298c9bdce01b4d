//! vipd's speaker alone: its sockets and its state machine, without what
//! decides.

use std::{future::pending, net::IpAddr, sync::Arc};

use anyhow::{Context as _, Result};
use tokio::{
    runtime::{Builder, Runtime},
    sync::watch,
};
use vipd::{
    announce::Announced,
    config::{Bgp, Config},
    events::Recorder,
    speaker::Speaker as VipdSpeaker,
};
use vipd_control::announcement::State;
use vipd_tests::{Machine, ROUTER_IPV4};

use super::{LOCAL_AS, ROUTER_AS, Speaker, addresses};
use crate::results::Change;

pub struct Session {
    announced: watch::Sender<Arc<Announced>>,
    bgp: Arc<Bgp>,
    /// Its threads live on the speaker's host.
    _runtime: Runtime,
}

impl Session {
    pub fn start(machine: &Machine) -> Result<Self> {
        let Machine { host, ipv4, .. } = machine;
        let text = format!(
            "[bgp]\nlocal_as = {LOCAL_AS}\nrouter_id = \"{ipv4}\"\n\
             [[bgp.peer]]\nname = \"router\"\naddress = \"{ROUTER_IPV4}\"\n\
             as = {ROUTER_AS}\nsource = \"{ipv4}\"\nconnect_retry = \"1s\"\n"
        );
        let (config, _) = Config::parse(&text, "vipd.toml")?;
        let bgp = Arc::new(config.bgp.context("no [bgp]")?);
        let configured = Arc::clone(&bgp);
        let (announced, announced_out) = watch::channel(Arc::default());
        let runtime = host.enter(|| {
            let mut builder = Builder::new_multi_thread();
            Ok(builder.worker_threads(2).enable_all().build()?)
        })?;
        runtime.spawn(async move {
            let mut speaker =
                VipdSpeaker::new(announced_out, false, "bfd.sock".into(), Recorder::default());
            speaker.configure(Some(&configured)).await;
            pending::<()>().await;
        });
        Ok(Self {
            announced,
            bgp,
            _runtime: runtime,
        })
    }
}

impl Speaker for Session {
    fn name(&self) -> &'static str {
        "vipd, its speaker alone"
    }

    fn order(&mut self, change: Change) -> Result<()> {
        let up = |address| (IpAddr::from(address).into(), State::Up);
        let states = match change {
            Change::Announce => addresses().map(up).collect(),
            Change::Withdraw => [].into(),
        };
        self.announced.send_replace(Arc::new(Announced {
            states,
            bgp: Some(Arc::clone(&self.bgp)),
            complete: true,
            ..Announced::default()
        }));
        Ok(())
    }
}
