package sample

import "testing"

func BenchmarkFirst(b *testing.B) {
	b.Run("work/usher", func(b *testing.B) {
		for b.Loop() {
		}
	})
	b.Run("work/rival", func(b *testing.B) {
		for b.Loop() {
		}
		b.ReportMetric(7, "keys")
	})
}

func BenchmarkSecond(b *testing.B) {
	for b.Loop() {
	}
}

func BenchmarkWrong(b *testing.B) { b.Error("the response is wrong") }
