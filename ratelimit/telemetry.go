package ratelimit

import "github.com/usher-go/usher/internal/telemetry"

const telemetryScope = "github.com/usher-go/usher/ratelimit"

var (
	requests = telemetry.Instrument{
		Kind:  telemetry.Counter,
		Scope: telemetryScope,
		Name:  "usher.rate_limiting.requests",
		Unit:  "{request}",
		Description: "Requests by the outcome of their rate limits. A request is counted once without a policy, " +
			"unless it is refused, and once for each policy that it violates or under which less than a fifth is left.",
		Attributes: []*telemetry.Attribute{requestResult, policyName},
	}.Declare()
	policyDecisions = telemetry.Instrument{
		Kind:  telemetry.Counter,
		Scope: telemetryScope,
		Name:  "usher.rate_limiting.decisions",
		Unit:  "{decision}",
		Description: "Decisions of each policy. A request that one policy refuses is not counted for those that would have " +
			"admitted it, so the shares of the results are those of the policy.",
		Attributes: []*telemetry.Attribute{policyDecision, policyName},
	}.Declare()
	concurrentRequests = telemetry.Instrument{
		Kind:        telemetry.Gauge,
		Scope:       telemetryScope,
		Name:        "usher.rate_limiting.concurrent_requests",
		Unit:        "{request}",
		Description: "Requests of this process that have a place under a concurrency limit.",
		Attributes:  []*telemetry.Attribute{policyName},
	}.Declare()
	requestResult = telemetry.Attribute{
		Name:        "usher.rate_limiting.result",
		Description: "The outcome of the rate limits.",
		Values:      outcomes[:],
		Span:        true,
	}.Declare()
	policyDecision = telemetry.Attribute{
		Name:        "usher.rate_limiting.decision",
		Description: "What the policy decided.",
		Values: []telemetry.Value{
			admits:  {"admitted", "The request is within the limit of the policy, and was admitted."},
			refuses: {"refused", "The request violates the policy."},
			shadows: {"shadow_refused", "The request violates the policy, which is only a shadow."},
		},
	}.Declare()
	policyName = telemetry.Attribute{
		Name:        "usher.rate_limiting.policy",
		Description: "The name of the policy.",
		Span:        true,
	}.Declare()
	violatedPolicyNames = telemetry.Attribute{
		Name:        "usher.rate_limiting.violated_policies",
		Description: "The names of all policies that the request violates.",
		Span:        true,
	}.Declare()
)

// The decisions of policies.
const (
	admits = iota
	refuses
	shadows
)

// The outcomes of requests. Those from refused on are of one policy.
const (
	acquired = iota
	exempt
	blocked
	storeFailed
	limitInvalid
	planUnknown
	planFailed
	canceled
	placeLost
	refused
	shadowed
	nearLimit
	delayed
)

var outcomes = [...]telemetry.Value{
	acquired:     {"acquired", "The request is within all limits."},
	exempt:       {"exempt", "Config.Exempt excludes the request from all limits."},
	blocked:      {"blocked", "Config.Block refused the request: 403."},
	storeFailed:  {"store_failed", "The store failed, and Config.OnStoreFailure decided."},
	limitInvalid: {"limit_invalid", "A function of the program returned an invalid limit."},
	planUnknown:  {"plan_unknown", "Policy.Plans lacks the plan of the request, and Policy.Limit was used."},
	planFailed:   {"plan_failed", "A function of the program could not return the plan or limit of a request."},
	canceled:     {"canceled", "The client left, or the time of the request ended, during the decision."},
	placeLost:    {"place_lost", "The store lost a place of a concurrency limit while the handler ran."},
	refused:      {"refused", "The request violates the policy: 429."},
	shadowed:     {"shadow_refused", "The request violates the policy, which is only a shadow and refuses nothing."},
	nearLimit:    {"near_limit", "The request was admitted, and less than a fifth of the limit is left."},
	delayed:      {"delayed", "The request waited for its turn."},
}
