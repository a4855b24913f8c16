package idempotency

import "github.com/usher-go/usher/internal/telemetry"

const telemetryScope = "github.com/usher-go/usher/idempotency"

var (
	requestsCounter = telemetry.Instrument{
		Kind:        telemetry.Counter,
		Scope:       telemetryScope,
		Name:        "usher.idempotency.requests",
		Unit:        "{request}",
		Description: "Requests with an idempotency key by result.",
		Attributes: []*telemetry.Attribute{telemetry.Attribute{
			Name:        "usher.idempotency.result",
			Description: "What was done with a request that has a key.",
			Values:      requestResults[:],
			Span:        true,
		}.Declare()},
	}.Declare()

	claimsCounter = telemetry.Instrument{
		Kind:        telemetry.Counter,
		Scope:       telemetryScope,
		Name:        "usher.idempotency.claims",
		Unit:        "{claim}",
		Description: "Claims of keys by how they have ended.",
		Attributes: []*telemetry.Attribute{telemetry.Attribute{
			Name:        "usher.idempotency.end",
			Description: "How the claim of a key has ended.",
			Values:      claimEnds[:],
			Span:        true,
		}.Declare()},
	}.Declare()

	evictionsCounter = telemetry.Instrument{
		Kind:        telemetry.Counter,
		Scope:       telemetryScope,
		Name:        "usher.idempotency.evictions",
		Unit:        "{request}",
		Description: "Requests whose stored response was evicted from a Memory to make room.",
	}.Declare()
)

// The results of requests with a key, as indices of requestResults.
const (
	executed = iota
	replayed
	inProgress
	mismatched
	notReplayable
	refused
	storeFailed
	unprotected
	unreadable
	resolveFailed
)

var requestResults = [...]telemetry.Value{
	executed:      {"executed", "The handler ran."},
	replayed:      {"replayed", "The client got the stored response of an earlier request."},
	inProgress:    {"in_progress", "The first request with the key is still running: 409."},
	mismatched:    {"mismatched", "The key was used for another request: 422."},
	notReplayable: {"not_replayable", "The first request with the key has ended, but its response is not kept or its outcome is unknown."},
	refused:       {"refused", "The request was refused before a claim, as its key or body is not valid."},
	storeFailed:   {"store_failed", "The store failed, and the handler did not run: 503."},
	unprotected:   {"unprotected", "The store failed, and the handler ran without protection, as DangerouslyFailOpen is set."},
	unreadable:    {"unreadable", "The record of the key cannot be read."},
	resolveFailed: {"resolve_failed", "Config.Resolve could not find out what an interrupted request has done."},
}

// The ends of claims, as indices of claimEnds.
const (
	responseKept = iota
	responseDropped
	tombstoned
	released
	leaseLost
	finishFailed
)

var claimEnds = [...]telemetry.Value{
	responseKept:    {"kept", "The response is stored, and duplicates get it."},
	responseDropped: {"dropped", "The response was too large for the store, and duplicates are refused."},
	tombstoned:      {"tombstoned", "That the request has ended is stored, but no response, and duplicates are refused."},
	released:        {"released", "The request had no effect, and the key is free again."},
	leaseLost:       {"lease_lost", "The claim was lost while the handler ran: another request may have run it again."},
	finishFailed:    {"finish_failed", "The result could not be stored: the outcome is unknown to duplicates."},
}
