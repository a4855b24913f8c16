package loopback

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"time"

	"golang.org/x/perf/benchfmt"
	"golang.org/x/perf/benchunit"

	"github.com/usher-go/usher/benchmarks/internal/load"
	"github.com/usher-go/usher/benchmarks/internal/stacks"
)

// A Plan describes what a round measures.
type Plan struct {
	// Program is the server: it takes -stack and -credential, and runs [Serve].
	Program string

	// Procs are the GOMAXPROCS that servers are started with, one after the other.
	Procs []int

	// Connections is how many clients keep one open.
	Connections int

	// Closed is how long the clients saturate a server; Open is how long they send
	// Rate requests per second. Before that they send for Warm without counting.
	Warm, Closed, Open time.Duration
	Rate               float64
}

// Time is about how long a round takes.
func (p Plan) Time() time.Duration {
	servers := len(p.Procs) * len(stacks.Names())
	return time.Duration(servers*len(stacks.Works())) * (2*p.Warm + p.Closed + p.Open)
}

var credentials = []stacks.Credential{stacks.Key, stacks.JWT}

// Round measures everything once, with new processes and in random order, and calls
// emit for each result, named by [Closed] or [Open]. Those of the closed loop have the
// time, the processor time of the server (cpu-ns/op), the requests per second and the
// allocations, those of the open loop percentiles of latency.
func (p Plan) Round(ctx context.Context, emit func(*benchfmt.Result) error) error {
	for _, procs := range p.Procs {
		for _, credential := range credentials {
			if err := p.beside(ctx, procs, credential, emit); err != nil {
				return err
			}
		}
	}
	return nil
}

// A server is a process that serves a stack.
type server struct {
	*process
	stack stacks.Name
}

// beside measures the stacks beside each other: for each work and loop one directly
// after the other.
func (p Plan) beside(ctx context.Context, procs int, credential stacks.Credential, emit func(*benchfmt.Result) error) (err error) {
	var servers []server
	for _, name := range stacks.Names() {
		process, startErr := start(ctx, procs, p.Program, "-stack="+string(name), "-credential="+string(credential))
		if startErr != nil {
			return startErr
		}
		defer func() { err = errors.Join(err, process.stop()) }()
		servers = append(servers, server{process, name})
	}
	for _, work := range stacks.Works() {
		if work.Credential != credential {
			continue
		}
		for _, measure := range []func(context.Context, server, stacks.Work, int) (*benchfmt.Result, error){p.closed, p.open} {
			for _, i := range rand.Perm(len(servers)) {
				result, err := measure(ctx, servers[i], work, procs)
				if err != nil {
					return errors.Join(ctx.Err(), err) // the end of ctx kills the servers
				}
				if err := emit(result); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (p Plan) closed(ctx context.Context, s server, work stacks.Work, procs int) (*benchfmt.Result, error) {
	name := Closed(work.Name, procs, string(s.stack))
	done, used, err := p.measure(ctx, s, work, func(clients []load.Sender) *load.Result {
		return load.Closed(ctx, clients, p.Closed)
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	n := float64(done.Sent)
	return result(name, done.Sent,
		value(float64(done.Elapsed)/n, "ns/op"),
		value(n/done.Elapsed.Seconds(), "req/s"),
		value(float64(used.CPU)/n, "cpu-ns/op"),
		value(float64(used.Bytes)/n, "B/op"),
		value(float64(used.Mallocs)/n, "allocs/op"),
	), nil
}

// Percentiles are those of the results of the open loop, in units like p99-ns. The one
// hundredth is the longest latency.
var Percentiles = []float64{50, 90, 99, 99.9, 100}

func (p Plan) open(ctx context.Context, s server, work stacks.Work, procs int) (*benchfmt.Result, error) {
	name := Open(work.Name, procs, string(s.stack))
	total := int(p.Rate * p.Open.Seconds())
	done, used, err := p.measure(ctx, s, work, func(clients []load.Sender) *load.Result {
		return load.Open(ctx, clients, p.Rate, total, load.Pause)
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	values := []benchfmt.Value{
		value(float64(used.CPU)/float64(done.Sent), "cpu-ns/op"),
		value(float64(done.Late.ValueAtPercentile(50)), "late-p50-ns"),
		value(float64(done.Late.ValueAtPercentile(99)), "late-p99-ns"),
	}
	for _, percentile := range Percentiles {
		values = append(values, value(float64(done.Latency.ValueAtPercentile(percentile)), fmt.Sprintf("p%g-ns", percentile)))
	}
	return result(name, done.Sent, values...), nil
}

// measure connects the clients, lets them warm the server up, and returns the outcome
// of the requests of run and what the server used for them.
func (p Plan) measure(ctx context.Context, s server, work stacks.Work, run func([]load.Sender) *load.Result) (done *load.Result, used Usage, err error) {
	clients := make([]load.Sender, p.Connections)
	for i := range clients {
		client, err := load.Dial(ctx, s.address, request(work))
		if err != nil {
			return nil, Usage{}, err
		}
		defer func() { _ = client.Close() }()
		clients[i] = client
	}
	if warm := load.Closed(ctx, clients, p.Warm); warm.Failed > 0 {
		return nil, Usage{}, warm.Err
	}
	// The collector of the clients has nothing to do with the server's latency.
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	before, err := s.usage()
	if err != nil {
		return nil, Usage{}, err
	}
	done = run(clients)
	after, err := s.usage()
	if err := cmp.Or(err, done.Err, ctx.Err()); err != nil {
		return nil, Usage{}, err
	}
	return done, after.minus(before), nil
}

// request is what goes over the wire for a work.
func request(work stacks.Work) load.Request {
	const fresh = "0000000000000000"
	r := work.NewRequest(fresh, 0)
	want := load.Request{Status: work.Status, Body: note(len(work.Body))}
	if work.Body != nil {
		r.Header["Idempotency-Key"] = []string{fresh}
		want.Fresh = fresh
	}
	var raw bytes.Buffer
	_ = r.Write(&raw) // a Buffer does not fail
	want.Raw = raw.Bytes()
	return want
}

// note checks that a response has the note that the service sends, in whatever envelope,
// and that the service received as many bytes.
func note(received int) func(body []byte) error {
	return func(body []byte) error {
		for _, part := range []string{`"id":"n-1"`, fmt.Sprintf(`"received":%d,`, received)} {
			if !bytes.Contains(body, []byte(part)) {
				return fmt.Errorf("loopback: no %s in the response %s", part, body)
			}
		}
		return nil
	}
}

func value(v float64, unit string) benchfmt.Value {
	tidied, tidy := benchunit.Tidy(v, unit)
	return benchfmt.Value{Value: tidied, Unit: tidy, OrigValue: v, OrigUnit: unit}
}

func result(name string, n int, values ...benchfmt.Value) *benchfmt.Result {
	return &benchfmt.Result{Name: benchfmt.Name(name), Iters: n, Values: values}
}
