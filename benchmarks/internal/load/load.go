package load

import (
	"context"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// A Sender sends one request and waits for the whole response. It returns an error
// for a response that is not the expected one. A Sender is one connection: it is used
// by one goroutine at a time.
type Sender interface {
	Send() error
}

// A Result is the outcome of the requests.
type Result struct {
	// Due counts the requests that the schedule had, Sent those that were sent.
	// They differ only if the context ended first. Without a schedule they are the
	// same.
	Due, Sent int

	// Failed counts the requests without the expected response, and Err is the first
	// reason. A failed request has no latency.
	Failed int
	Err    error

	// Elapsed is the time from the first moment to the last response.
	Elapsed time.Duration

	// Latency has the nanoseconds from the moment when a request was due to the end
	// of its response. Closed counts from when it was sent.
	Latency *hdrhistogram.Histogram

	// Late has the nanoseconds from the moment when a request was due to when it was
	// sent: the wait for a free connection, and how far the generator itself lags.
	// Closed leaves it empty.
	Late *hdrhistogram.Histogram
}

// Three digits of everything between 100 ns and a minute.
const (
	lowest  = 100 * time.Nanosecond
	highest = time.Minute
	digits  = 3
)

func newResult() *Result {
	histogram := func() *hdrhistogram.Histogram {
		return hdrhistogram.New(int64(lowest), int64(highest), digits)
	}
	return &Result{Latency: histogram(), Late: histogram()}
}

func record(h *hdrhistogram.Histogram, d time.Duration) {
	_ = h.RecordValue(int64(min(max(d, 0), highest))) // within its bounds
}

// send sends one request that was due at the given moment.
func (r *Result) send(s Sender, due time.Time) {
	r.Sent++
	if err := s.Send(); err != nil {
		r.Failed++
		if r.Err == nil {
			r.Err = err
		}
		return
	}
	record(r.Latency, time.Since(due))
}

func (r *Result) add(of *Result) {
	r.Sent += of.Sent
	r.Failed += of.Failed
	if r.Err == nil {
		r.Err = of.Err
	}
	r.Latency.Merge(of.Latency)
	r.Late.Merge(of.Late)
}

// each runs work for every sender at once, each with a Result of its own, and returns
// their sum.
func each(senders []Sender, start time.Time, work func(*Result, Sender)) *Result {
	results := make([]*Result, len(senders))
	var wg sync.WaitGroup
	for i, s := range senders {
		results[i] = newResult()
		wg.Go(func() { work(results[i], s) })
	}
	wg.Wait()
	sum := newResult()
	sum.Elapsed = time.Since(start)
	for _, r := range results {
		sum.add(r)
	}
	return sum
}

// Open sends total requests, rate of them per second at equal distances, over as
// many connections as there are senders. A request that is due while all of them wait
// for a response is sent as soon as one is free. Pause waits until a request is due;
// the default is [time.Sleep], [Pause] is more exact. When ctx ends, it sends no more.
func Open(ctx context.Context, senders []Sender, rate float64, total int, pause func(time.Duration)) *Result {
	if pause == nil {
		pause = time.Sleep
	}
	// The sender with the number of the next request waits for its moment; the others
	// wait for the number. So one goroutine sleeps, and no hand-over follows it.
	next := make(chan int, 1)
	next <- 0
	start := time.Now()
	sum := each(senders, start, func(r *Result, s Sender) {
		for {
			i := <-next
			due := start.Add(time.Duration(float64(i) / rate * float64(time.Second)))
			for wait := time.Until(due); wait > 0 && i < total; wait = time.Until(due) {
				pause(wait)
			}
			if i == total || ctx.Err() != nil {
				next <- total
				return
			}
			next <- i + 1
			record(r.Late, time.Since(due))
			r.send(s, due)
		}
	})
	sum.Due = total
	return sum
}

// Closed sends requests for d, each sender the next one as soon as it has the response.
func Closed(ctx context.Context, senders []Sender, d time.Duration) *Result {
	start := time.Now()
	sum := each(senders, start, func(r *Result, s Sender) {
		for sent := start; sent.Sub(start) < d && ctx.Err() == nil; sent = time.Now() {
			r.send(s, sent)
		}
	})
	sum.Due = sum.Sent
	return sum
}
