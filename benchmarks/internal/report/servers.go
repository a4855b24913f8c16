package report

import (
	"fmt"
	"strings"

	"github.com/usher-go/usher/benchmarks/internal/chart"
	"github.com/usher-go/usher/benchmarks/internal/loopback"
	"github.com/usher-go/usher/benchmarks/internal/stacks"
)

func (r *Report) servers(b *strings.Builder) {
	if len(r.throughput().Groups) == 0 {
		return
	}
	fmt.Fprintf(b, `## Whole servers

Each stack is a process of its own; clients keep %s connections to 127.0.0.1 open. The
stacks are in [internal/stacks](../internal/stacks/stacks.go), which says what each leaves
out. None has OpenTelemetry's server spans, which would cost all three the same.

Clients and server share the processors of one machine. So requests per second, with
connections that send again as soon as a response has come, say as much about the clients, and where
GOMAXPROCS is the number of processors they come from two programs that compete for them.
The processor time of the server per request (getrusage) is what compares stacks: its
inverse is what a processor of its own could serve.

`, r.set.Config("connections"))
	b.WriteString(picture("", "throughput", "Requests per second of processor time: a bare handler, usher, and the usual parts"))
	r.loop(b, "lrrrrrrr", []string{"", "processor time", "spread", "of bare", "requests/s", "of bare", "B", "allocs"}, r.closedCells)
	fmt.Fprintf(b, `### Latency

%s requests a second at equal distances, whatever the server does: latency counts from when
a request was due, so a stall counts for all that it kept waiting. The generator was late by
what the last column says at the median; that is part of the latency of every stack.

`, r.set.Config("rate"))
	b.WriteString(picture("", "latency", "Latency of a GET with an API key by percentile"))
	head := []string{""}
	for _, p := range loopback.Percentiles {
		head = append(head, fmt.Sprintf("p%g", p))
	}
	head[len(head)-1] = "longest"
	r.loop(b, "lrrrrrr", append(head, "late by"), r.openCells)
}

// loop writes a table for each work and GOMAXPROCS, with a row for each stack.
func (r *Report) loop(b *strings.Builder, right string, head []string, cells func(work string, procs int, stack string) ([]string, bool)) {
	for _, w := range serverWorks {
		for _, procs := range []int{1, 2} {
			var rows [][]string
			for _, stack := range stacks.Names() {
				if c, ok := cells(w.work, procs, string(stack)); ok {
					name := stackNames[stack]
					if stack == stacks.Usher {
						name = "**" + name + "**"
					}
					rows = append(rows, append([]string{name}, c...))
				}
			}
			if len(rows) > 0 {
				fmt.Fprintf(b, "%s, GOMAXPROCS=%d:\n\n", w.name, procs)
				table(b, right, head, rows)
			}
		}
	}
}

func (r *Report) closedCells(work string, procs int, stack string) ([]string, bool) {
	name := loopback.Closed(work, procs, stack)
	cpu, ok := r.set.Median(name, "cpu-sec/op")
	if !ok {
		return nil, false
	}
	rate, _ := r.set.Median(name, "req/s")
	size, _ := r.set.Median(name, "B/op")
	allocs, _ := r.set.Median(name, "allocs/op")
	byTime, _ := keeps(r.set, work, procs, stack, "cpu-sec/op")
	byRate, _ := keeps(r.set, work, procs, stack, "sec/op")
	return []string{
		chart.Seconds(cpu.Median), spread(cpu), number(byTime.Median),
		number(rate.Median), number(byRate.Median), number(size.Median), fmt.Sprintf("%.0f", allocs.Median),
	}, true
}

func (r *Report) openCells(work string, procs int, stack string) (cells []string, ok bool) {
	name := loopback.Open(work, procs, stack)
	for _, p := range loopback.Percentiles {
		m, measured := r.set.Median(name, fmt.Sprintf("p%g-sec", p))
		if !measured {
			return nil, false
		}
		cells = append(cells, chart.Seconds(m.Median))
	}
	late, _ := r.set.Median(name, "late-p50-sec")
	return append(cells, chart.Seconds(late.Median)), true
}
