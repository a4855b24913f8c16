package chart

import (
	"math"
	"strconv"
	"strings"

	"gonum.org/v1/plot"
)

// Seconds formats a duration with three digits and its unit.
func Seconds(s float64) string { return scaled(s, 1e-9, "ns", "µs", "ms", "s") }

// Bytes formats a size with three digits and its unit.
func Bytes(b float64) string { return scaled(b, 1, "B", "kB", "MB", "GB") }

// Size formats the size of a body, which is usually a power of two.
func Size(b float64) string {
	units := []string{"B", "KiB", "MiB"}
	i := 0
	for ; i < len(units)-1 && b >= 1024; i++ {
		b /= 1024
	}
	return digits(b) + " " + units[i]
}

// Count formats a number with three digits, in thousands or millions if it is large.
func Count(n float64) string {
	return strings.TrimSpace(scaled(n, 1, "", "k", "M", "G"))
}

func scaled(v, first float64, units ...string) string {
	v /= first
	i := 0
	for ; i < len(units)-1 && math.Abs(v) >= 999.5; i++ {
		v /= 1000
	}
	return digits(v) + " " + units[i]
}

// digits writes v with three significant digits, as far as they say something.
func digits(v float64) string {
	if v == 0 {
		return "0"
	}
	decimals := max(0, 2-int(math.Floor(math.Log10(math.Abs(v)*1.0005))))
	s := strconv.FormatFloat(v, 'f', min(decimals, 6), 64)
	if strings.Contains(s, ".") {
		s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
	}
	return s
}

// decades marks the powers of ten.
func decades(format func(float64) string) plot.Ticker {
	return plot.TickerFunc(func(low, high float64) []plot.Tick {
		var ticks []plot.Tick
		for e := math.Floor(math.Log10(low)); e <= math.Ceil(math.Log10(high)); e++ {
			if v := math.Pow(10, e); v >= low*0.999 && v <= high*1.001 {
				ticks = append(ticks, plot.Tick{Value: v, Label: format(v)})
			}
		}
		return ticks
	})
}

// steps marks about n round numbers from zero.
func steps(n int, format func(float64) string) plot.Ticker {
	return plot.TickerFunc(func(_, high float64) []plot.Tick {
		step := round(high / float64(n))
		var ticks []plot.Tick
		for i := 0; float64(i)*step <= high*1.0001; i++ {
			ticks = append(ticks, plot.Tick{Value: float64(i) * step, Label: format(float64(i) * step)})
		}
		return ticks
	})
}

// named marks 0, 1, 2... with names.
func named(names []string) plot.Ticker {
	ticks := make([]plot.Tick, len(names))
	for i, name := range names {
		ticks[i] = plot.Tick{Value: float64(i), Label: name}
	}
	return plot.ConstantTicks(ticks)
}

// round is the 1, 2, 2.5 or 5 times a power of ten that is nearest above v.
func round(v float64) float64 {
	power := math.Pow(10, math.Floor(math.Log10(v)))
	for _, m := range []float64{1, 2, 2.5, 5} {
		if v <= m*power {
			return m * power
		}
	}
	return 10 * power
}
