//! Which count has which name. One place for all of them, so that they can be read as a list (docs/METRICS.md).

use penstock_gateway::Gateway;
use penstock_gateway::upkeep::NodeReport;

use super::{Metrics, Page, Sample};

impl Metrics {
    /// Everything, as it is now.
    pub(crate) fn collect(&self) -> Vec<Sample> {
        let mut page = Page::default();
        page.gauge("penstock_process_info", "1: this process is up.", 1.0);
        self.requests(&mut page);
        if let Some(gateway) = &self.gateway {
            of_gateway(gateway, &mut page);
            of_executor(gateway, &mut page);
            of_upkeep(gateway, &mut page);
        }
        self.of_nodes(&mut page);
        self.of_rdma(&mut page);
        page.samples
    }

    fn requests(&self, page: &mut Page) {
        let Some(requests) = &self.requests else { return };
        for ((operation, status), count) in requests.read() {
            page.of(&[("operation", operation.to_owned()), ("status", format!("{status}xx"))]).count(
                "penstock_s3_requests",
                "Requests answered, by operation and class of status.",
                count,
            );
        }
        page.of(&[]);
    }

    fn of_nodes(&self, page: &mut Page) {
        for node in &self.nodes {
            let (node_stats, store, status) = (node.stats(), node.store_stats(), node.status());
            let page = page.of(&[("node", node.id().0.to_string())]);
            page.gauge("penstock_node_queue_requests", "Requests that the node works on.", node_stats.in_flight as f64);
            page.count("penstock_node_put_shards", "Shards made durable.", node_stats.puts);
            page.count("penstock_node_put_bytes", "Bytes of these.", node_stats.put_bytes);
            page.count("penstock_node_get_ranges", "Ranges of shards sent.", node_stats.gets);
            page.count("penstock_node_get_bytes", "Bytes of these.", node_stats.get_bytes);
            page.count("penstock_node_delete_requests", "Deletes done.", node_stats.deletes);
            page.count(
                "penstock_node_forbidden_requests",
                "Requests refused for their capability.",
                node_stats.forbidden,
            );
            page.count(
                "penstock_node_busy_requests",
                "Requests refused because too much was under way.",
                node_stats.busy,
            );
            page.count("penstock_node_bad_requests", "Requests that made no sense.", node_stats.bad_requests);
            page.count("penstock_node_missing_shards", "Reads of shards that are not there.", node_stats.missing);
            page.count("penstock_node_corrupt_shards", "Reads of shards that are damaged.", node_stats.corrupt);
            page.count("penstock_node_failed_requests", "Requests refused for another reason.", node_stats.failed);
            page.gauge(
                "penstock_store_capacity_bytes",
                "Bytes that the device can hold.",
                status.capacity_bytes as f64,
            );
            page.gauge("penstock_store_free_bytes", "Bytes that shards may still take.", status.free_bytes as f64);
            page.gauge("penstock_store_live_bytes", "Bytes of shards that live.", status.live_bytes as f64);
            page.gauge("penstock_store_live_shards", "Shards that live.", status.shards as f64);
            page.gauge("penstock_store_broken_shards", "Shards known to be damaged.", status.broken_shards as f64);
            page.gauge("penstock_store_open_extents", "Extents that take frames.", f64::from(status.open_extents));
            page.gauge(
                "penstock_store_failed_devices",
                "1 when the device has failed.",
                f64::from(u8::from(status.failed)),
            );
            page.gauge(
                "penstock_store_read_seconds",
                "How long a read takes, smoothed.",
                f64::from(status.read_us) / 1e6,
            );
            page.gauge(
                "penstock_store_flush_seconds",
                "How long a flush takes, smoothed.",
                f64::from(status.flush_us) / 1e6,
            );
            page.count("penstock_store_flush_requests", "Flushes asked of the device.", store.flushes);
            page.count("penstock_store_commit_groups", "Groups that one flush made durable.", store.commits);
            page.count("penstock_store_frame_bytes", "Bytes of frames written.", store.frame_bytes);
            page.count("penstock_store_read_errors", "Reads that the device refused.", store.read_errors);
            page.count("penstock_store_write_errors", "Frames that could not be written.", store.write_errors);
            page.count(
                "penstock_store_corrupt_reads",
                "Reads whose bytes were not those written.",
                store.corrupt_reads,
            );
            page.count(
                "penstock_store_lost_frames",
                "Acknowledged frames that a start found broken.",
                store.frames_lost,
            );
            page.count("penstock_store_compacted_extents", "Extents emptied by compaction.", store.compactions);
            page.count("penstock_store_compacted_bytes", "Bytes of shards moved by it.", store.moved_bytes);
            page.count("penstock_scrub_read_shards", "Shards read by scrubs.", store.scrubbed_shards);
            page.count("penstock_scrub_read_bytes", "Bytes of these.", store.scrubbed_bytes);
            page.count("penstock_scrub_bad_shards", "Of these, the damaged ones.", store.scrubbed_bad);
            page.gauge(
                "penstock_scrub_ended_timestamp_seconds",
                "When the last whole scrub ended; 0 for never.",
                status.scrub.last_ended_unix_ms as f64 / 1e3,
            );
        }
        for (node, rebuilder) in self.nodes.iter().zip(&self.rebuilders) {
            let stats = rebuilder.stats();
            let page = page.of(&[("node", node.id().0.to_string())]);
            page.gauge("penstock_rebuild_queue_stripes", "Rebuilds under way beside the node.", stats.in_flight as f64);
            page.count("penstock_rebuild_done_stripes", "Rebuilds done beside the node.", stats.rebuilds);
            page.count("penstock_rebuild_failed_stripes", "Rebuilds that could not be done.", stats.failed);
            page.count("penstock_rebuild_read_shards", "Shards read for rebuilds.", stats.reads);
            page.count("penstock_rebuild_read_bytes", "Bytes of these.", stats.read_bytes);
            page.count("penstock_rebuild_stored_shards", "Shards rebuilt and stored.", stats.shards);
            page.count("penstock_rebuild_stored_bytes", "Bytes of these.", stats.written_bytes);
        }
        page.of(&[]);
    }

    fn of_rdma(&self, page: &mut Page) {
        if let Some(calls) = &self.calls {
            let counts = calls.counts();
            page.count("penstock_rdma_made_connections", "Connections made to nodes.", counts.connected);
            page.count("penstock_rdma_broken_connections", "Connections that broke.", counts.broken);
            page.count("penstock_rdma_retried_calls", "Calls sent again on a fresh connection.", counts.retried);
            page.count("penstock_rdma_calls", "Calls answered over RDMA.", counts.calls_rdma);
            page.count("penstock_rdma_fallback_calls", "Calls that went over TCP instead.", counts.calls_tcp);
            page.count("penstock_rdma_declined_connections", "Times that a node declined RDMA.", counts.declined);
            page.count("penstock_rdma_payload_bytes", "Payload of calls over RDMA, both ways.", counts.payload_bytes);
        }
        if let Some(served) = &self.served {
            let counts = served.counts();
            page.count("penstock_rdma_accepted_connections", "Connections taken by this node.", counts.accepted);
            page.gauge("penstock_rdma_open_connections", "Connections that are open.", counts.open as f64);
            page.count("penstock_rdma_served_calls", "Calls that this node answered over RDMA.", counts.calls);
            page.count("penstock_rdma_served_read_bytes", "Payload READ from callers.", counts.read_bytes);
            page.count("penstock_rdma_served_written_bytes", "Payload WRITTEN to callers.", counts.written_bytes);
        }
    }
}

fn of_gateway(gateway: &Gateway, page: &mut Page) {
    let (stats, load) = (gateway.stats(), gateway.load());
    page.count("penstock_gateway_payload_in_bytes", "Object data that clients sent through.", stats.payload_in_bytes);
    page.count("penstock_gateway_payload_out_bytes", "Object data sent to clients.", stats.payload_out_bytes);
    page.count("penstock_gateway_read_plans", "Plans given for reads.", stats.read_plans);
    page.count("penstock_gateway_planned_read_bytes", "Bytes that those cover.", stats.planned_read_bytes);
    page.count("penstock_gateway_write_plans", "Plans given for bodies.", stats.write_plans);
    page.count("penstock_gateway_committed_plans", "Of those, the ones committed.", stats.plan_commits);
    page.count("penstock_gateway_planned_written_bytes", "Bytes of those.", stats.planned_written_bytes);
    page.count("penstock_gateway_refused_commits", "Commits refused for ticket or receipts.", stats.commits_refused);
    for (reason, count) in &stats.declined {
        let page = page.of(&[("reason", (*reason).to_owned())]);
        page.count("penstock_gateway_declined_plans", "Plans declined.", *count);
    }
    page.of(&[]);
    page.gauge("penstock_gateway_queue_requests", "Requests under way, open reads included.", load.requests as f64);
    page.gauge("penstock_gateway_open_streams", "Reads whose streams live.", load.open_streams as f64);
    page.gauge("penstock_gateway_stored_bodies", "Bodies being stored.", load.puts_in_flight as f64);
    page.gauge("penstock_gateway_pending_writes", "Data on its way in, or dropped.", load.pending_data as f64);
    page.gauge("penstock_gateway_open_plans", "Plans whose time has not run out.", load.plans_open as f64);
    if let Some(pool) = &load.pool {
        page.gauge("penstock_gateway_buffers_used_bytes", "Payload memory in use.", pool.in_use_bytes as f64);
        page.gauge("penstock_gateway_buffers_capacity_bytes", "Payload memory there is.", pool.capacity_bytes as f64);
        page.gauge("penstock_gateway_buffers_waiting_requests", "Who waits for payload memory.", pool.waiters as f64);
    }
    page.count("penstock_garbage_deleted_runs", "Runs of data deleted from every node.", load.garbage_deleted);
    page.count("penstock_garbage_deleted_shards", "Shards deleted as garbage.", load.garbage_shards);
    page.count(
        "penstock_garbage_put_off_runs",
        "Deletions put off: still read, or a node was away.",
        load.garbage_left,
    );
}

fn of_executor(gateway: &Gateway, page: &mut Page) {
    let stats = gateway.executor_stats();
    page.count("penstock_executor_written_stripes", "Stripes written with their quorum.", stats.stripes_written);
    page.count("penstock_executor_missing_shards", "Shards of those not durable in time.", stats.shards_missing);
    page.count("penstock_executor_read_stripes", "Stripes read, in whole or in part.", stats.stripes_read);
    page.count("penstock_executor_decoded_stripes", "Of those, the ones that took a decode.", stats.stripes_decoded);
    page.count("penstock_executor_further_reads", "Reads beyond those of the fast path.", stats.further_asks);
    page.count("penstock_executor_hedged_reads", "Of these, those for shards that were late.", stats.hedges_asked);
    page.count("penstock_executor_hedges_won_reads", "Reads that a hedge finished.", stats.hedges_won);
    page.count("penstock_executor_hedges_refused_reads", "Hedges past their budget.", stats.hedges_refused_budget);
    page.gauge(
        "penstock_executor_slow_nodes",
        "Nodes that are read last for being slow.",
        stats.slow_nodes.len() as f64,
    );
    page.gauge("penstock_executor_open_nodes", "Nodes that are not asked for a while.", stats.open_nodes.len() as f64);
    for (node, counts) in &stats.nodes {
        let page = page.of(&[("node", node.0.to_string())]);
        page.count("penstock_executor_corrupt_shards", "Shards that came with wrong bytes.", counts.corrupt);
        page.count("penstock_executor_failed_calls", "Calls of this node that failed.", counts.failed);
        page.count("penstock_executor_late_reads", "Reads finished without waiting for this node.", counts.late);
    }
    page.of(&[]);
}

fn of_upkeep(gateway: &Gateway, page: &mut Page) {
    let report = gateway.upkeep_report();
    for state in ["up", "down", "lost", "failed", "draining"] {
        let of_state = |node: &&NodeReport| format!("{:?}", node.state).to_lowercase() == state;
        let count = report.nodes.iter().filter(of_state).count();
        let page = page.of(&[("state", state.to_owned())]);
        page.gauge("penstock_cluster_nodes", "Nodes of the cluster's map, by state.", count as f64);
    }
    page.of(&[]);
    let slow = report.nodes.iter().filter(|node| node.slow).count();
    page.gauge("penstock_cluster_slow_nodes", "Nodes whose device is far slower than the others'.", slow as f64);
    for node in &report.nodes {
        let page = page.of(&[("node", node.node.to_string())]);
        page.gauge("penstock_cluster_capacity_bytes", "Bytes that the node can hold.", node.capacity_bytes as f64);
        page.gauge("penstock_cluster_free_bytes", "Bytes that shards may still take there.", node.free_bytes as f64);
        page.gauge(
            "penstock_cluster_broken_shards",
            "Damaged shards that the node knows of.",
            node.broken_shards as f64,
        );
    }
    page.of(&[]).gauge("penstock_repair_queue_runs", "Runs of stripes that wait for repair.", report.queued as f64);
    page.gauge("penstock_repair_put_off_runs", "Runs whose repair was put off.", report.put_off as f64);
    for (spare, count) in &report.queued_by_spare {
        page.of(&[("spare", spare.to_string())]).gauge(
            "penstock_repair_waiting_runs",
            "Runs to be repaired, by the shards that they can still lose.",
            *count as f64,
        );
    }
    let repaired = report.repaired;
    let page = page.of(&[]);
    page.count("penstock_repair_done_runs", "Runs made whole.", repaired.done);
    page.count("penstock_repair_blocked_runs", "Repairs for which there was no node.", repaired.blocked);
    page.count("penstock_repair_stored_shards", "Shards rebuilt or copied.", repaired.shards);
    page.count("penstock_repair_read_shards", "Shards read for repairs, from node to node.", repaired.reads);
    page.count("penstock_repair_read_bytes", "Bytes of these.", repaired.read_bytes);
    page.count("penstock_repair_stored_bytes", "Bytes rebuilt or copied.", repaired.written_bytes);
    page.gauge(
        "penstock_survey_ended_timestamp_seconds",
        "When metadata and nodes were last compared; 0 for never.",
        report.survey_ended_unix_ms as f64 / 1e3,
    );
    page.gauge("penstock_survey_seen_runs", "Runs of stripes that the last survey saw.", report.survey.runs as f64);
    page.gauge(
        "penstock_survey_bad_shards",
        "Shards that it found missing or damaged.",
        report.survey.shards_bad as f64,
    );
    page.gauge("penstock_survey_strays_runs", "Data on nodes that nothing refers to.", report.survey.strays as f64);
    page.count("penstock_survey_deleted_strays", "Strays deleted.", report.strays_deleted);
    let lacking: u64 = report.survey.under_replicated.values().sum();
    page.gauge("penstock_survey_lacking_stripes", "Stripes that lacked shards when it saw them.", lacking as f64);
    let lost: u64 = report.survey.under_replicated.range(..0).map(|(_, count)| count).sum();
    page.gauge("penstock_survey_unreadable_stripes", "Of these, the ones that can't be read.", lost as f64);
}
