package wire

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// maxPacket is the longest packet of the protocol, with its length.
const maxPacket = 65520

// packetKind tells packets with data from the special ones.
type packetKind uint8

const (
	dataPacket packetKind = iota
	flushPacket
	delimiterPacket
	endPacket
)

// packet is a packet as it came in. Its data is good until the next one is read.
type packet struct {
	kind packetKind
	data []byte
}

// text is the data without the newline at its end.
func (p packet) text() string { return strings.TrimSuffix(string(p.data), "\n") }

// packets reads packets from a stream.
type packets struct {
	r      *bufio.Reader
	buffer []byte
}

func newPackets(r io.Reader) *packets {
	buffered, ok := r.(*bufio.Reader)
	if !ok {
		buffered = bufio.NewReaderSize(r, 8<<10)
	}
	return &packets{r: buffered}
}

// next reads a packet. An error line of the server becomes an error.
func (p *packets) next() (packet, error) {
	var head [4]byte
	if _, err := io.ReadFull(p.r, head[:]); err != nil {
		return packet{}, truncated(err)
	}
	size, err := strconv.ParseUint(string(head[:]), 16, 16)
	if err != nil {
		return packet{}, &Error{Code: CodeProtocol, Text: "the answer is not Git's protocol"}
	}
	switch {
	case size == 0:
		return packet{kind: flushPacket}, nil
	case size == 1:
		return packet{kind: delimiterPacket}, nil
	case size == 2:
		return packet{kind: endPacket}, nil
	case size < 4 || size > maxPacket:
		return packet{}, &Error{Code: CodeProtocol, Text: "the answer has a packet of a wrong length"}
	}
	if p.buffer == nil {
		p.buffer = make([]byte, 1024)
	}
	if int(size) > len(p.buffer) {
		p.buffer = make([]byte, maxPacket)
	}
	data := p.buffer[:size-4]
	if _, err := io.ReadFull(p.r, data); err != nil {
		return packet{}, truncated(err)
	}
	if message, ok := bytes.CutPrefix(data, []byte("ERR ")); ok {
		return packet{}, remoteError(string(message))
	}
	return packet{data: data}, nil
}

func truncated(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return &Error{Code: CodeNetwork, Text: "the answer ends early", Err: io.ErrUnexpectedEOF}
	}
	return err
}

// message builds a request.
type message struct{ bytes.Buffer }

func (m *message) line(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	fmt.Fprintf(m, "%04x%s\n", len(text)+5, text)
}

func (m *message) flush()     { m.WriteString("0000") }
func (m *message) delimiter() { m.WriteString("0001") }

// sideband is the pack in an answer that carries progress and errors too.
type sideband struct {
	packets *packets
	rest    []byte
	done    bool
}

// Read gives bytes of the pack.
func (s *sideband) Read(to []byte) (int, error) {
	for len(s.rest) == 0 {
		if s.done {
			return 0, io.EOF
		}
		p, err := s.packets.next()
		if err != nil {
			return 0, err
		}
		if p.kind != dataPacket {
			s.done = true
			continue
		}
		if len(p.data) == 0 {
			continue
		}
		switch band, data := p.data[0], p.data[1:]; band {
		case 1:
			s.rest = data
		case 2:
		case 3:
			return 0, remoteError(string(data))
		default:
			return 0, &Error{Code: CodeProtocol, Text: "the answer has an unknown side band"}
		}
	}
	n := copy(to, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}
