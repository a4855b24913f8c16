package telemetry

import (
	"context"
	"runtime"
	"weak"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// Observe makes the gauge i count what f returns for v whenever metrics are collected,
// until stop is called or nothing else refers to v. So v needs no end, and f must not refer
// to it but through its argument. A nil provider means the global one.
func Observe[T any](i *Instrument, p metric.MeterProvider, v *T, f func(v *T) int64, fixed ...attribute.KeyValue) (stop func()) {
	meter := i.meter(p)
	// An instrument that is returned with an error works, or does nothing.
	gauge, _ := meter.Int64ObservableUpDownCounter(i.Name,
		metric.WithDescription(i.Description), metric.WithUnit(i.Unit))
	set := metric.WithAttributeSet(attribute.NewSet(fixed...))
	observed := weak.Make(v)
	registration, err := meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		if v := observed.Value(); v != nil {
			o.ObserveInt64(gauge, f(v), set)
		}
		return nil
	}, gauge)
	if err != nil {
		return func() {}
	}
	end := func(r metric.Registration) { _ = r.Unregister() }
	cleanup := runtime.AddCleanup(v, end, registration)
	return func() {
		cleanup.Stop()
		end(registration)
	}
}
