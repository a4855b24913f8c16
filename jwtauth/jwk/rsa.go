package jwk

import (
	"crypto/rsa"
	"errors"
	"fmt"
	"math/big"
	"sync"
)

// checkRSA returns the reason why k is too weak, or so large that verifying costs too
// much, or nil.
func checkRSA(k *rsa.PublicKey) error {
	switch bits := k.N.BitLen(); {
	case bits < 2048 || bits > 8192:
		return fmt.Errorf("an RSA key must have 2048 to 8192 bits, not %d", bits)
	case k.N.Bit(0) == 0:
		return errors.New("is an RSA key with an even modulus")
	case k.E < 3 || k.E%2 == 0:
		return errors.New("is an RSA key whose public exponent is not an odd number from 3")
	case isROCA(k.N):
		return errors.New("is an RSA key of a generator whose keys can be factored (CVE-2017-15361)")
	}
	return nil
}

// isROCA reports whether n is of the generator of CVE-2017-15361. Modulo each prime up to
// 701, the primes that it makes for keys from 1984 bits are powers of 65537, and so are
// their products (Nemec et al., The Return of Coppersmith's Attack, 2017, section 2). Other
// moduli are found out after a few primes; that one is a power modulo all of them does not
// happen by chance.
func isROCA(n *big.Int) bool {
	var remainder big.Int
	for _, p := range rocaPrimes() {
		if !isPower(remainder.Mod(n, big.NewInt(p)).Int64(), 65537, p) {
			return false
		}
	}
	return true
}

// isPower reports whether n is a power of base modulo the prime p.
func isPower(n, base, p int64) bool {
	power := int64(1)
	for range p {
		if power == n {
			return true
		}
		power = power * base % p
	}
	return false
}

// rocaPrimes has the odd primes up to 701.
var rocaPrimes = sync.OnceValue(func() (primes []int64) {
	for n := int64(3); n <= 701; n += 2 {
		if big.NewInt(n).ProbablyPrime(0) {
			primes = append(primes, n)
		}
	}
	return primes
})
