package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel"
	otelprometheus "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/exporters/stdout/stdouttrace"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	"go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
)

// telemetry is what a process has once, whatever it serves.
type telemetry struct {
	metrics  http.Handler // for Prometheus
	shutdown func(context.Context) error
}

// startTelemetry sets the providers that otelhttp and usher take when they have none of
// their own, and the default log. A nil spans drops the spans, but not their IDs.
func startTelemetry(log, spans io.Writer) (*telemetry, error) {
	service := resource.NewSchemaless(semconv.ServiceName("orders"))

	registry := prometheus.NewRegistry()
	exporter, err := otelprometheus.New(otelprometheus.WithRegisterer(registry))
	if err != nil {
		return nil, err
	}
	meters := metric.NewMeterProvider(metric.WithReader(exporter), metric.WithResource(service))
	otel.SetMeterProvider(meters)

	options := []trace.TracerProviderOption{trace.WithResource(service)}
	if spans != nil {
		// Most services send them to a collector, with the package otlptracehttp.
		exporter, err := stdouttrace.New(stdouttrace.WithWriter(spans))
		if err != nil {
			return nil, errors.Join(err, meters.Shutdown(context.Background()))
		}
		options = append(options, trace.WithBatcher(exporter))
	}
	tracers := trace.NewTracerProvider(options...)
	otel.SetTracerProvider(tracers)
	otel.SetTextMapPropagator(propagation.TraceContext{})

	slog.SetDefault(slog.New(identified{slog.NewJSONHandler(log, nil)}))

	return &telemetry{
		metrics: promhttp.HandlerFor(registry, promhttp.HandlerOpts{}),
		shutdown: func(ctx context.Context) error {
			return errors.Join(tracers.Shutdown(ctx), meters.Shutdown(ctx))
		},
	}, nil
}
