// Bench measures usher beside its rivals and writes the report: the Go benchmarks of
// this module and whole servers over the loopback, in rounds.
//
//	go run ./cmd/bench              # about 10 minutes; writes report/ and the figures of ../README.md
//	go run ./cmd/bench -quick       # about 1 minute; writes to a temporary directory
//	go run ./cmd/bench -report-only # writes the report again from report/results.txt
package main

import (
	"context"
	"flag"
	"io"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"github.com/usher-go/usher/benchmarks/internal/report"
	"github.com/usher-go/usher/benchmarks/internal/results"
)

// options are what to measure and where to write.
type options struct {
	dir, readme string
	only        string
	rounds      int
	scales      int // how many rounds measure how costs grow
	benchtime   time.Duration
	closed      time.Duration
	open        time.Duration
	rate        float64
}

var (
	whole = options{dir: "report", readme: "../README.md", rounds: 9, scales: 3, benchtime: 50 * time.Millisecond, closed: 500 * time.Millisecond, open: 750 * time.Millisecond, rate: 4000}
	quick = options{rounds: 1, benchtime: 5 * time.Millisecond, closed: 150 * time.Millisecond, open: 250 * time.Millisecond, rate: 4000}
)

func main() {
	log.SetFlags(log.Ltime)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		log.Fatal(err) //nolint:gocritic // The process ends anyway.
	}
}

func run(ctx context.Context, arguments []string, out io.Writer) error {
	o, reportOnly, err := parse(arguments)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(o.dir, 0o755); err != nil {
		return err
	}
	stored := filepath.Join(o.dir, "results.txt")
	if !reportOnly {
		if err := measure(ctx, o, stored); err != nil {
			return err
		}
	}
	return write(o, stored, out)
}

// parse reads the command line: -quick chooses other defaults for the rest.
func parse(arguments []string) (o options, reportOnly bool, err error) {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	isQuick := flags.Bool("quick", false, "measure for about a minute and write to a temporary directory")
	flags.BoolVar(&reportOnly, "report-only", false, "measure nothing, write the report from the stored results")
	var given options
	flags.StringVar(&given.dir, "dir", "", "where results and report are written (default report)")
	flags.StringVar(&given.only, "only", "", "run the benchmarks that match this regular expression, and no servers")
	flags.IntVar(&given.rounds, "rounds", 0, "how many rounds (default 9)")
	flags.IntVar(&given.scales, "scales", -1, "how many of the rounds measure how costs grow as well (default 3)")
	flags.DurationVar(&given.benchtime, "benchtime", 0, "how long each Go benchmark runs in a round (default 50ms)")
	if err := flags.Parse(arguments); err != nil {
		return o, false, err
	}
	o = whole
	if *isQuick {
		o = quick
		if given.dir == "" {
			if given.dir, err = os.MkdirTemp("", "usher-bench-"); err != nil {
				return o, false, err
			}
		}
	}
	if given.dir != "" {
		o.dir, o.readme = given.dir, ""
	}
	o.only = given.only
	if given.rounds > 0 {
		o.rounds = given.rounds
	}
	if given.scales >= 0 {
		o.scales = given.scales
	}
	if given.benchtime > 0 {
		o.benchtime = given.benchtime
	}
	return o, reportOnly, nil
}

// write makes the report of the stored results, and prints how the targets were met.
func write(o options, stored string, out io.Writer) error {
	file, err := os.Open(stored)
	if err != nil {
		return err
	}
	set, err := results.Read(file)
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	r := report.New(set, report.Contest())
	if err := r.Write(o.dir); err != nil {
		return err
	}
	if o.readme != "" {
		if err := r.WriteFigures(o.readme); err != nil {
			return err
		}
	}
	if _, err := io.WriteString(out, r.Verdicts()); err != nil {
		return err
	}
	log.Printf("the report is %s", filepath.Join(o.dir, "README.md"))
	return nil
}
