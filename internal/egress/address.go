package egress

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"golang.org/x/net/idna"
)

// CheckServer refuses a host that is written as an address which is refused, or as a number
// that some take for an address, or that is a name of a cloud's metadata service or, at its
// port, of the operator itself. It is for connections that a proxy makes, which resolves the
// name; any other name is looked at when it is dialed.
func (p Policy) CheckServer(ctx context.Context, host, port string) error {
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return &Refused{Text: fmt.Sprintf("port %s is refused; it is no number of a port", Quote(port))}
	}
	if strings.ContainsFunc(host, func(r rune) bool { return r > unicode.MaxASCII }) {
		// There are other forms of letters, digits and dots, which the HTTP library and
		// proxies write so as well.
		ascii, err := idna.Lookup.ToASCII(host)
		if err != nil {
			return &Refused{Text: fmt.Sprintf("host %s is refused; it is neither a name nor an address", Quote(host))}
		}
		host = ascii
	}
	address, err := netip.ParseAddr(host)
	if err == nil {
		return p.check(ctx, netip.AddrPortFrom(address, uint16(number)))
	}
	name := strings.ToLower(strings.TrimSuffix(host, "."))
	last := name[strings.LastIndexByte(name, '.')+1:]
	if digits := strings.TrimPrefix(last, "0x"); digits != "" && (digits != last || strings.Trim(digits, "0123456789") == "") && strings.Trim(digits, "0123456789abcdef") == "" {
		return &Refused{Text: fmt.Sprintf("host %s is refused; it is neither a name nor an address", Quote(host))}
	}
	if metadataName(name) {
		return &Refused{Text: fmt.Sprintf("host %s is refused; it is a name of a cloud's metadata service", Quote(host))}
	}
	return p.Own.checkName(name, uint16(number))
}

// metadataName tells whether a name is that of the metadata service of Google, Tencent or
// AWS. It has lower case letters, and no dot at its end.
func metadataName(name string) bool {
	switch name {
	case "metadata", "metadata.google.internal", "metadata.goog", "metadata.tencentyun.com", "instance-data", "instance-data.ec2.internal":
		return true
	}
	return strings.HasPrefix(name, "instance-data.") && strings.HasSuffix(name, ".compute.internal")
}

// metadata are the addresses where clouds keep the metadata and the credentials of a
// machine, beside the link-local ones: of AWS, with that of EKS Pod Identity, Google, Oracle,
// Alibaba and Azure.
func metadata() []netip.Addr {
	return []netip.Addr{
		netip.MustParseAddr("fd00:ec2::254"), netip.MustParseAddr("fd00:ec2::23"), netip.MustParseAddr("fd20:ce::254"), netip.MustParseAddr("fd00:c1::a9fe:a9fe"),
		netip.MustParseAddr("100.100.100.200"), netip.MustParseAddr("168.63.129.16"),
	}
}

// translation is a form in which an address of IPv4 is written as one of IPv6: behind a
// prefix, at places of its bytes.
type translation struct {
	prefix netip.Prefix
	at     [4]int
	// inverted is set where the bits are turned round.
	inverted bool
}

// translations are RFC 6052, RFC 8215 with all lengths of prefixes, RFC 2765, RFC 3056 (6to4),
// RFC 4380 (Teredo: the server and the client), and RFC 4291 for what is not used any more.
func translations() []translation {
	end := [4]int{12, 13, 14, 15}
	local := netip.MustParsePrefix("64:ff9b:1::/48")
	return []translation{
		{prefix: netip.MustParsePrefix("64:ff9b::/96"), at: end},
		{prefix: local, at: [4]int{6, 7, 9, 10}}, {prefix: local, at: [4]int{7, 9, 10, 11}}, {prefix: local, at: [4]int{9, 10, 11, 12}}, {prefix: local, at: end},
		{prefix: netip.MustParsePrefix("::ffff:0:0:0/96"), at: end},
		{prefix: netip.MustParsePrefix("2002::/16"), at: [4]int{2, 3, 4, 5}},
		{prefix: netip.MustParsePrefix("2001::/32"), at: [4]int{4, 5, 6, 7}}, {prefix: netip.MustParsePrefix("2001::/32"), at: end, inverted: true},
		{prefix: netip.MustParsePrefix("::/96"), at: end},
	}
}

// meant are the addresses that one may lead to: itself, and those of IPv4 that are written
// in it.
func meant(address netip.Addr) []netip.Addr {
	plain := address.Unmap().WithZone("")
	all := []netip.Addr{plain}
	if plain.Is4() || plain.IsLoopback() || plain.IsUnspecified() {
		return all
	}
	bytes := plain.As16()
	// ISATAP, RFC 5214: in the second half, behind any prefix.
	if bytes[8]&^2 == 0 && bytes[9] == 0 && bytes[10] == 0x5e && bytes[11] == 0xfe {
		all = append(all, netip.AddrFrom4([4]byte(bytes[12:])))
	}
	for _, t := range translations() {
		if !t.prefix.Contains(plain) {
			continue
		}
		var within [4]byte
		for i, from := range t.at {
			if within[i] = bytes[from]; t.inverted {
				within[i] = ^within[i]
			}
		}
		if within == [4]byte{} && t.at[3] != 15 {
			continue // the prefix is a longer one
		}
		all = append(all, netip.AddrFrom4(within))
	}
	return all
}

// check refuses link-local addresses, those where clouds keep the metadata of a machine, and
// those of the operator's own servers, also where they are written as addresses of IPv6.
func (p Policy) check(ctx context.Context, to netip.AddrPort) error {
	all := meant(to.Addr())
	for _, plain := range all {
		if plain.IsLinkLocalUnicast() || slices.Contains(metadata(), plain) {
			return &Refused{Text: fmt.Sprintf("connections to %s are refused; it is a link-local or metadata address", plain)}
		}
	}
	for _, plain := range all {
		if p.NoPrivate && (plain.IsPrivate() || plain.IsLoopback() || plain.IsUnspecified() || netip.MustParsePrefix("100.64.0.0/10").Contains(plain)) {
			return &Refused{Text: fmt.Sprintf("connections to %s are refused; it is a private address, which --no-private-sources refuses", plain), private: true}
		}
	}
	return p.Own.check(ctx, all, to.Port())
}
