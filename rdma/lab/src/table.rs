//! The tests that `./dev lab test` runs, in order. Those of one topology share its guests.
//!
//! A test of another crate is a few lines here: the programs that cargo builds, and the commands per guest. Test programs
//! (`What::UnitTests`, `What::Test`) take the usual arguments: `--test-threads`, `--nocapture`, a filter.

use crate::build::What;
use crate::end_to_end;
use crate::suite::{LabTest, Plan, Step, When};
use crate::tests_of_lab as own;
use crate::topology::Topology;

/// How many nodes the cluster's tests have.
const CLUSTER: Topology = Topology::Cluster { nodes: 3 };

/// All tests.
pub(crate) const TESTS: &[LabTest] = &[
    LabTest {
        name: "the guest has what it should",
        topology: Topology::One,
        builds: &[],
        plan: Plan::Script(own::guest_is_complete),
        tidy: true,
    },
    LabTest {
        name: "the lab sees failures",
        topology: Topology::One,
        builds: &[],
        plan: Plan::Script(own::failures_are_seen),
        tidy: true,
    },
    LabTest {
        name: "perftest on one device",
        topology: Topology::One,
        builds: &[],
        plan: Plan::Script(own::perftest_runs),
        tidy: true,
    },
    LabTest {
        name: "steps, programs and addresses",
        topology: Topology::One,
        builds: &[What::UnitTests("penstock-lab"), What::Bin("penstock-lab", "penstock-lab")],
        plan: Plan::Steps(&[
            Step { guest: "one", argv: &["sh", "-c", "echo here; sleep 60"], when: When::Says("here"), limit_s: 60 },
            Step {
                guest: "one",
                argv: &["sh", "-c", "ip address show lab0 | grep -F {one}/24"],
                when: When::Ended,
                limit_s: 30,
            },
            Step { guest: "one", argv: &["{0}", "switch::"], when: When::Ended, limit_s: 60 },
            Step { guest: "one", argv: &["{1}", "test", "--list"], when: When::Ended, limit_s: 30 },
        ]),
        tidy: true,
    },
    LabTest {
        name: "clients of every dialect, over verbs",
        topology: Topology::One,
        builds: &[What::Test("penstock-s3", "dialects")],
        plan: Plan::Steps(&[Step {
            guest: "one",
            argv: &["env", "TMPDIR=/data", "PENSTOCK_RDMA_DEVICE=rxe0", "{0}", "--test-threads", "1"],
            when: When::Ended,
            limit_s: 600,
        }]),
        tidy: true,
    },
    LabTest {
        name: "verbs on a device",
        topology: Topology::One,
        builds: &[What::Test("penstock-verbs", "lab")],
        plan: Plan::Steps(&[Step {
            guest: "one",
            argv: &["{0}", "--ignored", "--test-threads", "1"],
            when: When::Ended,
            limit_s: 400,
        }]),
        tidy: true,
    },
    LabTest {
        name: "the transport's conformance suite over RDMA, nothing written late, a node that dies",
        topology: Topology::One,
        builds: &[What::Test("penstock-rdma-transport", "lab")],
        plan: Plan::Steps(&[Step {
            guest: "one",
            argv: &["{0}", "--ignored", "--test-threads", "1"],
            when: When::Ended,
            limit_s: 600,
        }]),
        tidy: true,
    },
    LabTest {
        name: "the lab on the machine's own kernel",
        topology: Topology::One,
        builds: &[What::Bin("penstock-lab", "penstock-lab")],
        plan: Plan::Script(own::host_kernel_works),
        tidy: true,
    },
    LabTest {
        name: "penstock doctor sees the device",
        topology: Topology::One,
        builds: &[What::Bin("penstock", "penstock")],
        plan: Plan::Script(own::doctor_sees_the_device),
        // The port's addresses come back a moment after the port.
        tidy: false,
    },
    LabTest {
        name: "gateway and nodes as processes, RDMA required between them",
        topology: Topology::One,
        builds: &[What::Bin("penstock", "penstock")],
        plan: Plan::Steps(&[Step {
            guest: "one",
            argv: &["bash", "-c", include_str!("processes.sh"), "processes", "{0}"],
            when: When::Ended,
            limit_s: 400,
        }]),
        tidy: true,
    },
    LabTest {
        name: "the guests of a cluster reach each other",
        topology: CLUSTER,
        builds: &[],
        plan: Plan::Script(own::cluster_is_joined),
        tidy: true,
    },
    LabTest {
        name: "RDMA between guests survives 1 % loss",
        topology: CLUSTER,
        builds: &[],
        plan: Plan::Script(own::loss_is_survived),
        tidy: true,
    },
    LabTest {
        name: "end to end: client, gateway and nodes in guests of their own, payload over RDMA",
        topology: CLUSTER,
        builds: &[What::Bin("penstock", "penstock")],
        plan: Plan::Script(end_to_end::run),
        tidy: false,
    },
    LabTest {
        name: "the dialects from another machine than the gateway's",
        topology: CLUSTER,
        builds: &[What::Bin("penstock", "penstock"), What::Test("penstock-s3", "dialects")],
        plan: Plan::Script(end_to_end::dialects),
        tidy: false,
    },
    LabTest {
        name: "a guest that dies keeps its disk and holds up nobody",
        topology: CLUSTER,
        builds: &[],
        plan: Plan::Script(own::guest_dies),
        tidy: false,
    },
];
