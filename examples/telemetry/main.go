// Telemetry is a small orders API whose operators see what usher decides: metrics for
// Prometheus, spans by otelhttp, and a log whose lines have the IDs of the trace and of the
// request. It needs no other service:
//
//	go run ./examples/telemetry
//	curl -H 'X-API-Key: ...' http://127.0.0.1:8080/orders
//	curl http://127.0.0.1:9464/metrics
//
// The directory docs/telemetry has a dashboard and alert rules for its metrics.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "telemetry:", err)
		os.Exit(1)
	}
}

// run serves until ctx ends. What it makes first it closes last: the requests in flight
// end, then what the middlewares have in the background, then the telemetry of both.
func run(ctx context.Context, args []string, out io.Writer) (err error) {
	flags := flag.NewFlagSet("telemetry", flag.ContinueOnError)
	addr := flags.String("addr", "127.0.0.1:8080", "address of the API; port 0 picks a free one")
	metrics := flags.String("metrics", "127.0.0.1:9464", "address of /metrics, which clients must not reach")
	spans := flags.Bool("spans", false, "print the spans too")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var exported io.Writer
	if *spans {
		exported = out
	}
	telemetry, err := startTelemetry(out, exported)
	if err != nil {
		return err
	}
	defer end(&err, telemetry.shutdown)

	s := newServer(config{})
	defer end(&err, s.close)
	_, secret, err := s.keys.Manager.Create(ctx, apikey.Actor{System: true}, apikey.Key{Owner: "demo", Name: "demo", Level: usher.LevelReadWrite})
	if err != nil {
		return err
	}

	operators := http.NewServeMux()
	operators.Handle("GET /metrics", telemetry.metrics)
	metricsURL, ended, err := serve(ctx, *metrics, operators)
	if err != nil {
		return err
	}
	defer end(&err, ended)
	apiURL, ended, err := serve(ctx, *addr, s)
	if err != nil {
		return err
	}
	defer end(&err, ended)
	fmt.Fprintf(out, "curl -H 'X-API-Key: %s' %s/orders\ncurl %s/metrics\n", secret.Reveal(), apiURL, metricsURL)
	<-ctx.Done()
	return nil
}

// serve serves h at an address until the function that it returns is called.
func serve(ctx context.Context, addr string, h http.Handler) (url string, end func(context.Context) error, err error) {
	var listen net.ListenConfig
	listener, err := listen.Listen(ctx, "tcp", addr)
	if err != nil {
		return "", nil, err
	}
	server := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	return "http://" + listener.Addr().String(), func(ctx context.Context) error {
		err := server.Shutdown(ctx)
		if failed := <-served; !errors.Is(failed, http.ErrServerClosed) {
			err = errors.Join(err, failed)
		}
		return err
	}, nil
}

// end joins the error of f, which has 5 seconds, to err.
func end(err *error, f func(context.Context) error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	*err = errors.Join(*err, f(ctx))
}
